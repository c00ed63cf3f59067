from __future__ import annotations

import pytest

from edgekd.artefacts import Format
from edgekd.bundle.card import card_text
from edgekd.evidence import EvidenceKind
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import CompressionPlan
from edgekd.store.certificate import Certificate
from edgekd.targets.verdict import judge
from edgekd.testing.fakes.spots import NUMBERS


def test_every_budget_is_there(certificate: Certificate) -> None:
    text = card_text(certificate)
    limits = certificate.target.limits
    assert len(limits) == 4
    for limit in limits:
        assert f"| {limit} |" in text
    assert text.count("| holds |") == 3
    assert "holds (reported only)" in text
    assert "not certified" not in text


@pytest.mark.parametrize(("load", "cores", "named"), [(29.7, 2, True), (0.2, 2, False), (None, None, False)])
def test_a_machine_that_was_busy_is_named(
    certificate: Certificate, load: float | None, cores: int | None, named: bool
) -> None:
    text = card_text(certificate.but(load_average=load, machine_cores=cores))
    assert ("| load | measured beside other work: load average 29.7 on 2 cores |" in text) is named


def test_a_budget_without_a_figure_says_so(certificate: Certificate) -> None:
    figures = [figure for figure in certificate.figures if figure.metric != "latency.p95"]
    text = card_text(certificate.but(verdict=judge(certificate.target, figures)))
    assert "| latency.p95 <= 200 us | no figure |  | unknown |" in text
    assert "**not certified**" in text
    assert "Not every budget is known to hold" in text


def test_an_emulated_figure_is_called_so_and_certifies_nothing(certificate: Certificate) -> None:
    figures = tuple(
        figure.but(kind=EvidenceKind.EMULATED) if figure.metric == "latency.p95" else figure
        for figure in certificate.figures
    )
    text = card_text(certificate.but(figures=figures))
    assert "(emulated)" in text
    assert "**not certified**" in text
    assert certificate.but(figures=figures).standing == "emulated"
    assert certificate.standing == "certified"


def test_modelled_energy_counts_only_where_the_target_lets_it(certificate: Certificate) -> None:
    of_p95 = next(figure for figure in certificate.figures if figure.metric == "latency.p95")
    energy = of_p95.but(
        metric="energy.per_inference", unit="J", kind=EvidenceKind.MODELLED, value=1e-3, low=1e-3, high=1e-3
    )
    figures = (*certificate.figures, energy)
    for modelled, standing in ((True, "modelled"), (False, "not certified")):
        budgets = {**certificate.target.budgets.model_dump(), "energy": {"per_inference": "2 mJ", "modelled": modelled}}
        target = certificate.target.but(budgets=budgets)
        found = certificate.but(target=target, figures=figures, verdict=judge(target, figures))
        assert found.standing == standing
    assert certificate.but(figures=figures).standing == "certified"  # nobody asked for it


@pytest.mark.parametrize(
    ("file_format", "computes"),
    [
        (
            Format.ONNX,
            "weights stored in 8 bits; linear layers quantize their inputs to 8 bits at run time, "
            "convolutions compute in float",
        ),
        (
            Format.OPENVINO,
            "weights stored in 8 bits; linear layers quantize their inputs to 8 bits at run time, "
            "convolutions compute in float",
        ),
        (Format.TFLITE, "weights stored in 8 bits, activations quantized to 8 bits at run time"),
    ],
)
def test_a_precision_says_what_is_computed(certificate: Certificate, file_format: Format, computes: str) -> None:
    plan = CompressionPlan(precision=Precision.DYNAMIC_INT8)
    text = card_text(certificate.but(format=file_format, candidate=certificate.candidate.but(plan=plan)))
    assert f"| precision | dynamic-int8: {computes} |" in text


def test_every_figure_has_its_kind_and_method(certificate: Certificate) -> None:
    text = card_text(certificate)
    for figure in certificate.figures:
        assert f"| {figure.metric} | {figure} | {figure.kind.value} | {figure.method} |" in text


def test_errors_of_numbers_are_reported_in_their_units(certificate: Certificate) -> None:
    assert "errors" not in certificate.accuracy.model_dump(), "records without numbers are written as they always were"
    accuracy = certificate.accuracy.but(errors={"age MAE": 3.25})
    text = card_text(certificate.but(accuracy=accuracy, task=certificate.task.but(head=NUMBERS)))
    assert "| age MAE | 3.25 |" in text
    assert "numbers (regression, 2 numbers)" in text
