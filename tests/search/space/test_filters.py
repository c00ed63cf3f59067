"""Filters remove only what can't fit, and count each arch once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekd.artefacts import Backend
from edgekd.evidence import EvidenceKind
from edgekd.ir.features import StaticFeatures
from edgekd.ir.numerics import Precision
from edgekd.search.space.filters import apply_filters, at_precision, narrowed
from edgekd.store.records import Deployment, DeploymentObservation, FeaturesRecord
from edgekd.targets.target import Target

MIB = 1 << 20


def features(*parameters: int, peak: int = 0) -> FeaturesRecord:
    rows = tuple(
        StaticFeatures(
            parameters=n, macs=n, weight_bytes=4 * n, peak_activation_bytes=peak, bytes_moved=4 * n + 100, depth=3
        )
        for n in parameters
    )
    return FeaturesRecord(space_size=100, indices=tuple(range(len(rows))), features=rows)


def target(**budgets: Any) -> Target:
    fields = {"name": "t", "device": "d", "backends": ["litert/xnnpack"], "budgets": budgets}
    return Target.model_validate(fields)


def test_a_size_budget_is_held_against_weights_at_each_precision(make_lab: Callable[..., Any]) -> None:
    found = apply_filters(target(size={"file": "1000 B"}), make_lab().plan, features(200, 500, 1001))
    assert found.allowed == {Precision.FLOAT32: (0,), Precision.INT8: (0, 1)}
    assert found.left == (0, 1)
    assert [(m.name, m.removed, m.kind) for m in found.record.filters] == [("size.file", 1, EvidenceKind.ANALYTIC)]
    assert (found.record.space_size, found.record.considered, found.record.left) == (100, 3, 2)


def test_each_arch_is_counted_at_the_first_filter_that_removes_it(make_lab: Callable[..., Any]) -> None:
    limits = target(memory={"model": "1 MiB"}, size={"file": "1 MiB"})
    found = apply_filters(limits, make_lab().plan, features(1000, 3 * MIB, 9 * MIB))
    assert [(m.name, m.removed) for m in found.record.filters] == [("memory.model", 2), ("size.file", 0)]


def test_memory_has_room_for_what_the_runtime_held_already(make_lab: Callable[..., Any]) -> None:
    limits = target(memory={"model": "1 MiB"})
    table = features(1000, 1000, 1000, peak=0)
    peaks = (2 * MIB - 4000, 2 * MIB - 3999, 9 * MIB)  # beside 4,000 bytes of weights; int8 takes a quarter of all
    rows = tuple(row.but(peak_activation_bytes=peak) for row, peak in zip(table.features, peaks, strict=True))
    found = apply_filters(limits, make_lab().plan, table.but(features=rows))
    assert found.allowed == {Precision.FLOAT32: (0,), Precision.INT8: (0, 1)}


def test_informative_budgets_and_other_metrics_remove_nothing(make_lab: Callable[..., Any]) -> None:
    limits = target(size={"file": "1 B", "report": True}, latency={"p95": "1 us"})
    found = apply_filters(limits, make_lab().plan, features(1000))
    assert found.left == (0,)
    assert found.record.filters == ()


def test_what_a_format_adds_is_learnt_an_operator_from_the_reference_archs(make_lab: Callable[..., Any]) -> None:
    plan, limits = make_lab(by_files_seen=True).plan, target(size={"file": "1000 B"})
    table = features(100, 500, 700, 950)
    filtered = apply_filters(limits, plan, table)
    deployment = Deployment(backend=Backend.model_validate("litert/xnnpack"), precision=Precision.INT8)

    def seen(sizes: dict[int, int]) -> Any:
        observations = [
            DeploymentObservation(deployment=deployment, arch=plan.space.at(i), measurement=None, size_bytes=size)
            for i, size in sizes.items()
        ]
        return narrowed(limits, plan, table, filtered, [deployment], observations)

    assert filtered.allowed[Precision.INT8] == (0, 1, 2, 3)
    # 3 operators: 100 + 300 and 500 + 360 bytes say that at least 100 bytes an operator come on top
    found = seen({0: 400, 1: 860})
    assert found.allowed == {deployment: (0, 1, 2)}
    assert (found.report.name, found.report.removed) == ("size.file", 1)
    assert found.report.kind is EvidenceKind.PREDICTED
    # held out: 100 + 3 x 120 of 400 bytes, and 500 + 3 x 100 of 860
    assert found.report.asks.endswith("<= 1 kB; held out, it errs by -7.0% to +15.0%")
    # files that would rule everything out are an estimate, and no estimate ends a search
    assert seen({0: 5000}).allowed == {deployment: (0, 1, 2, 3)}
    # a deployment of which no file was seen keeps what the weights alone allow
    assert seen({}).allowed == {deployment: (0, 1, 2, 3)}


def test_precisions_are_those_of_the_deployments(make_lab: Callable[..., Any]) -> None:
    deployment = Deployment(backend=Backend.model_validate("litert/xnnpack"), precision=Precision.FLOAT16)
    assert list(apply_filters(target(), make_lab(deployments=(deployment,)).plan, features(1)).allowed) == [
        Precision.FLOAT16
    ]


def test_features_at_a_precision() -> None:
    plain = features(100, peak=800).features[0]
    assert at_precision(plain, Precision.FLOAT32) == plain
    int8 = at_precision(plain, Precision.INT8)
    assert (int8.weight_bytes, int8.peak_activation_bytes, int8.bytes_moved) == (100, 200, 125)
    half = at_precision(plain, Precision.FLOAT16)
    assert (half.weight_bytes, half.peak_activation_bytes) == (200, 800)
