from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.devices._protocol import MeasurePlan
from edgekd.distill.generative.picture import png
from edgekd.distill.teacher_agreement import agreement_of
from edgekd.errors import ConfigurationError
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure, find_figure
from edgekd.report.facts import gather
from edgekd.report.page import _left, page_text, write_report
from edgekd.running import RunAnswer
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.explanation import ExplanationRecord, TermShare
from edgekd.store.predicted import (
    Costs,
    DeploymentMemory,
    DeploymentPredictor,
    HeldOut,
    MemoryFit,
    PredictorsRecord,
    Scales,
)
from edgekd.store.records import Accuracy
from edgekd.store.schema import read_record
from edgekd.units import format_bytes
from tests.report.conftest import INT8

WrittenRun = Any
Write = Callable[..., WrittenRun]
VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


class Page(HTMLParser):
    """Tags, attributes and the text a person reads; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.words.append(data)
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(written: WrittenRun) -> Page:
    return Page(page_text(gather(written.run.folder)))


@pytest.mark.slow
def test_the_verdict_comes_first(write: Write) -> None:
    written = write()
    written.whole()
    text = page_text(gather(written.run.folder))
    sentence = re.search("<h1>(.*?)</h1>", text)
    assert sentence is not None
    assert sentence[1].startswith("Certified: litert int8 . 94.0% test . p95 ")
    assert text.index("<h1>") < text.index("<svg") < text.index("<h2>")


@pytest.mark.slow
def test_every_budget_is_drawn_with_its_answer(write: Write) -> None:
    written = write()
    written.whole()
    page = page_of(written)
    head = page.text[: page.text.index("Candidates")]
    for limit in written.target.limits:
        assert str(limit) in head
    assert len(written.target.limits) == 4
    assert page.attributes.count(("class", "bar")) == 4
    assert head.count(": holds, margin") == 4
    assert "(reported only)" in head


@pytest.mark.slow
def test_operator_times_that_are_missing_say_why(write: Write) -> None:
    written = write()
    written.whole()
    for finalist in written.run.finalists():
        refused = finalist.measurement.but(operators=(), operators_detail="refused: too little to go by")
        written.run.write(finalist.but(measurement=refused))
    page = page_of(written)
    assert "Where the time goes No operator times: refused: too little to go by." in page.text


@pytest.mark.slow
def test_every_section_of_a_whole_run(write: Write) -> None:
    written = write()
    written.whole()
    page = page_of(written)
    sections = [
        "Candidates",
        "What the filters removed",
        "Backends and precisions",
        "Where the time goes",
        "Stage by stage",
        "Training",
        "Certificate",
        "The measurement itself",
        "Finalists",
        "To repeat it",
    ]
    assert page.headings == sections
    assert page.tags.count("section") == len(sections)
    assert "took 5 min 9 s" in page.text
    assert re.search(r"Trials: .*\d crashed", page.text)
    assert "CONV_2D 2 40 us 80 %" in page.text
    assert "litert/xnnpack int8: 1.40x the time of float32, but smaller" in page.text
    finalist, listed = written.run.finalists()[0], page.text.split("Finalists")[-1]
    assert str(find_figure(finalist.figures, "latency.p95")) in listed
    assert format_bytes(finalist.artefact.size_bytes) in listed


@pytest.mark.slow
def test_names_are_text_and_never_markup(write: Write) -> None:
    evil = '<script>alert("x")</script>&<img src=x onerror=y>'
    written = write(name=evil)
    written.whole()
    page = page_of(written)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert evil in page.text


def test_one_file_and_no_network(write: Write) -> None:
    written = write()
    path = written.whole().folder / "report.html"
    assert write_report(written.run.folder) == path
    text = path.read_text()
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    links = [value for name, value in page.attributes if name == "href"]
    assert links
    assert all(value and value.startswith("bundle/") for value in links)  # of the run's folder
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert sorted(p.name for p in written.run.folder.glob("report*")) == ["report.html"]


@pytest.mark.parametrize("steps", [[], ["filters"], ["filters", "deployments"], ["filters", "deployments", "trials"]])
def test_an_unfinished_run_is_drawn(write: Write, steps: list[str]) -> None:
    written = write()
    for step in steps:
        getattr(written, step)()
    page = page_of(written)
    assert "Not finished: " in page.text
    assert "To repeat it" in page.text
    assert "Certificate" not in page.text
    assert ("What the filters removed" in page.text) == ("filters" in steps)
    assert ("Candidates" in page.text) == ("trials" in steps)


def test_a_run_without_certificate_shows_the_finalists_verdict(write: Write) -> None:
    written = write()
    written.filters()
    written.trials()
    written.finalist()
    written.outcome()
    page = page_of(written)
    assert "a student was found" in page.text
    assert "latency.p95 <= 200 us" in page.text
    assert "Certified" not in page.text


def test_what_a_prediction_removed_is_reported_with_its_error(write: Write) -> None:
    written = write()
    written.filters()
    fit = DeploymentPredictor(
        deployment=INT8,
        samples=24,
        costs=Costs(form="all kernels alike", vector=1, constant_us=0.0, coefficients={}),
        scales=Scales(),
        widths=(1.0,),
        held_out=HeldOut(samples=24, median=0.021, p95=0.083, worst=0.2, rank=0.99),
        prior=None,
        bound_us=150.0,
        removed=7,
    )
    memory = MemoryFit(constant_bytes=9e5, coefficients=(4.0, 4.0, 0.0), samples=23, error_bytes=65_536.0)
    bound = DeploymentMemory(deployment=INT8, fit=memory, bound_bytes=2.0 * 1024**2, removed=3)
    written.run.write(
        PredictorsRecord(number=0, batch=1, deployments=(fit,), memories=(bound,), seconds=1.0, ended_s=9.0)
    )
    text = page_of(written).text
    assert "memory.model <= 2 MiB, at the lower end of its interval; fitted to 23 measurements, off by 64 KiB" in text
    assert "latency.p5 <= 150 us, at the lower end of its interval; fitted to 24 measurements" in text
    assert "off by 2.1 % on those left out, by 8.3 % at 95 %" in text


def test_nothing_fits_says_what_is_nearest(write: Write) -> None:
    written = write(budgets={"latency": {"p95": "50 us"}})
    written.trials()
    written.finalist(chosen=False)
    written.outcome(exit_code=5, chosen=None, summary="no candidate meets resnet")
    page = page_of(written)
    assert "no candidate meets resnet" in page.text
    assert "nearest: resnet" in page.text
    assert "fails, margin -" in page.text


def test_a_budget_far_away_does_not_press_the_front(write: Write) -> None:
    written = write(budgets={"latency": {"p95": "1 s"}})
    written.trials()
    page = page_of(written)
    assert "budget 1 s: beyond the right edge" in page.text
    dots = [float(value or 0) for name, value in page.attributes if name == "cx"]
    assert max(dots) - min(dots) > 100


@pytest.mark.slow
def test_figures_carry_their_kind(write: Write) -> None:
    written = write()
    written.whole()
    page = page_of(written)
    assert "analytic" in page.text  # a filter
    assert "torch" in page.text  # a trial's accuracy
    assert "measured; median over 5 fresh processes" in page.text


def test_a_folder_that_is_no_run(write: Write) -> None:
    folder = write().run.folder.parent
    with pytest.raises(ConfigurationError):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_names_of_close_dots_do_not_cover_each_other() -> None:
    from edgekd.report.front import _names

    parts = _names([(100.0, 50.0, "finalist 1"), (140.0, 52.0, "finalist 2"), (600.0, 52.0, "finalist 3")])
    heights = [float(re.search(r' y="([\d.]+)"', part).group(1)) for part in parts]  # type: ignore[union-attr]
    assert heights[0] == 42.0
    assert heights[1] >= 66.0
    assert heights[2] == 44.0  # no other label is near


def test_the_front_joins_the_trials_that_no_other_beats_in_both() -> None:
    from edgekd.report.front import CandidatePoint, _front

    def point(latency: float, accuracy: float, role: str = "trial") -> CandidatePoint:
        figure = Figure(
            metric="latency.p95", value=latency, unit="us", kind=EvidenceKind.MEASURED, subject="0" * 64, method="timed"
        )
        scored = Accuracy(value=accuracy, kind=AccuracyKind.TORCH, split="validation", samples=9, method="here")
        return CandidatePoint("", "", figure, scored, None, role)

    best = [point(1.0, 0.5), point(2.0, 0.7), point(4.0, 0.9)]
    others = [point(2.0, 0.6), point(3.0, 0.7), point(5.0, 0.8), point(0.5, 0.99, "finalist")]
    assert _front([*others, *reversed(best)]) == best


def test_what_is_left_to_propose_counts_the_filters_by_files_too() -> None:
    seen = SimpleNamespace(filters=[SimpleNamespace(removed=67), SimpleNamespace(removed=0)])
    facts: Any = SimpleNamespace(filters=SimpleNamespace(left=203), deployments=seen)
    assert _left(facts) == 136
    facts.deployments = None
    assert _left(facts) == 203


@pytest.mark.slow
def test_what_a_generator_drew_is_shown_without_a_file_beside_the_page(write: Write) -> None:
    written = write()
    written.whole()
    assert "What the generator drew" not in page_of(written).headings
    folder = written.run.stages / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "pictures.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    page = page_of(written)
    assert "What the generator drew" in page.headings
    (source,) = [value for name, value in page.attributes if name == "src"]
    assert base64.b64decode(source.removeprefix("data:image/png;base64,"))[:4] == b"\x89PNG"
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in (value or "")]
    assert "img-src data:" in policy.split("; ")  # or a browser draws none of it


def test_a_sheet_of_drawings_is_shown_once_and_the_chosen_students_first(write: Write) -> None:
    written = write()
    written.whole()
    sheets = {name: png(np.full((4, 4), shade, np.uint8)) for name, shade in (("a", 0), ("b", 0), ("c", 9), ("d", 7))}
    chosen = gather(written.run.folder).chosen
    sheets[chosen.student] = png(np.full((4, 4), 200, np.uint8))
    for name, sheet in sheets.items():
        (written.run.stages / name).mkdir(parents=True)
        (written.run.stages / name / "pictures.png").write_bytes(sheet)
    assert gather(written.run.folder).pictures == (sheets[chosen.student], sheets["a"], sheets["c"], sheets["d"])


def test_an_explanation_is_shown_with_its_shares(write: Write) -> None:
    written = write()
    written.whole()
    followed_ = agreement_of(np.eye(3), np.eye(3)[[0, 1, 1]], np.arange(3), ("cat", "<b>dog</b>", "bird"))
    terms = (TermShare(name="kd", first=0.25, last=0.75), TermShare(name="ce", first=0.75, last=0.25))
    written.run.write(ExplanationRecord(finalist=1, terms=terms, following=followed_))
    page = page_of(written)
    assert "kd 25.0 % 75.0 %" in page.text
    assert "says what the teacher says on 66.7 % of 3 validation samples" in page.text
    assert "<b>dog</b>" in page.text


def test_each_head_is_followed_by_its_name(write: Write) -> None:
    written = write()
    written.whole()
    cells = agreement_of(np.eye(3), np.eye(3)[[0, 1, 1]], np.arange(3), ("cat", "dog", "bird"), "cells")
    terms = (TermShare(name="mask", first=0.25, last=0.75),)
    written.run.write(ExplanationRecord(finalist=1, terms=terms, following=None, heads={"mask": cells}))
    assert "mask. The student says what the teacher says on 66.7 % of 3 validation cells" in page_of(written).text


def test_shares_are_shown_where_no_sample_validates(write: Write) -> None:
    written = write()
    written.filters()
    terms = (TermShare(name="kd", first=0.25, last=0.75), TermShare(name="ce", first=0.75, last=0.25))
    written.run.write(ExplanationRecord(finalist=1, terms=terms, following=None))
    assert "kd 25.0 % 75.0 %" in page_of(written).text


def test_each_stage_of_the_recipe_has_its_row(write: Write) -> None:
    written = write()
    written.whole()
    text = page_of(written).text
    assert "Stage by stage" in text
    assert "distill float32 91.23 % artefact" in text
    assert "gone, says resnet" in text


def test_each_round_has_its_row(write: Write) -> None:
    from edgekd.ir.space import Arch
    from edgekd.store.records import RoundOption, RoundRecord

    written = write()
    written.whole()
    arch = Arch.of({"width": 8})
    option = RoundOption(arch=arch, p5_us=10.0, size_bytes=10, accuracy=0.875)
    other = RoundOption(arch=Arch.of({"width": 4}), p5_us=5.0, size_bytes=5, accuracy=None, detail="<it> crashed")
    written.run.write(RoundRecord(number=1, before=option, options=(option, other), arch=arch))
    written.run.write(RoundRecord(number=2, before=option, options=(option,), arch=None))
    text = page_of(written).text
    assert "Round by round" in text
    assert "1 width=8 87.50 % inherited" in text
    assert "1 none 10 us 10 B 87.50 % torch 1 width=8 10 us" in text
    assert "1 width=4 5 us 5 B <it> crashed" in text
    assert "no step gains enough" in text


@pytest.mark.slow
def test_a_recipe_that_was_chosen_is_shown_with_what_it_beat(write: Write) -> None:
    from edgekd.ir.space import Arch
    from edgekd.store.records import AutoOption, AutoRecord, AutoScore

    written = write()
    written.whole()
    options = (
        AutoOption(phase="loss", name="kd"),
        AutoOption(phase="loss", name="dkd", why_not="it needs <labels>"),
        AutoOption(phase="views", name="crop and flip"),
    )
    scores = (
        AutoScore(phase="loss", option="kd", epochs=2, validation=0.5),
        AutoScore(phase="loss", option="kd", epochs=4, validation=0.625),
        AutoScore(phase="views", option="crop and flip", epochs=4, validation=None, detail="diverged"),
    )
    record = AutoRecord(arch=Arch.of({"width": 8}), options=options, scores=scores)
    written.run.write(record)
    assert "Not chosen yet" in page_of(written).text
    written.run.write(record.but(loss="kd", views="crop and flip", ended="time"))
    text = page_of(written).text
    assert "kd, crop and flip , by short trainings of width=8" in text
    assert "50.00 % after 2 , 62.50 % after 4" in text
    assert "it needs <labels>" in text
    assert "ended it early" in text


@pytest.mark.slow
def test_a_choice_that_was_trained_is_shown_with_its_errors(write: Write) -> None:
    from edgekd.ir.space import Arch, Axis
    from edgekd.records import digest_json
    from edgekd.store.differentiable import (
        CostTerm,
        LatencyModelRecord,
        SupernetPoint,
        SupernetRecord,
        TeacherTuningRecord,
    )
    from edgekd.store.records import Accuracy, FeaturesRecord, PlanRecord

    written = write()
    written.whole()
    (deployment,) = {
        observation.deployment
        for observation in written.run.deployments().observations
        if observation.deployment.precision.value == "float32"
    }
    written.run.write(
        PlanRecord(
            axes=(Axis(name="width", choices=(8, 16, 24)),), deployments=(deployment,), reference_archs=1,
            sampler="differentiable",
            batch=2,
            trials=3, finalists=1, measure=MeasurePlan(), certify=MeasurePlan(), refine_images=1,
        )
    )  # fmt: skip
    terms = (
        CostTerm(name="latency", bound=150.0, unit="us", kind="predicted", detail="p95 <= 200 us"),
        CostTerm(name="energy", bound=None, unit="J", kind="measured", detail="no <meter> was read"),
    )
    model = LatencyModelRecord(
        deployment=deployment, form="a straight line", constant_us=1.0, coefficients={}, samples=24, error_median=0.031,
        error_worst=0.127, bandwidth=None, block_costs=(), terms=terms,
    )  # fmt: skip
    written.run.write(model)
    page = page_of(written)
    assert "The choice that was trained" in page.headings
    assert "it errs by 3.1 % near the budget (median), 12.7 % at most" in page.text
    assert "latency 150 us predicted p95 <= 200 us" in page.text
    assert "energy no term no <meter> was read" in page.text
    points = tuple(
        SupernetPoint(
            epoch=epoch, loss=1.0, held_out_loss=held, temperature=1.0 - epoch / 2, open_bits=1.5 - epoch,
            shares={"latency": 1.4 - epoch / 3}, multipliers={}, mode=Arch.of({"width": 16}), images_per_s=1.0,
        )
        for epoch, held in enumerate((None, 0.5))
    )  # fmt: skip
    written.run.write(
        SupernetRecord(
            logits={"width": (0.0, 1.0, 0.0)}, points=points, mode=Arch.of({"width": 16}), weights=digest_json("w"),
            nearby=FeaturesRecord(space_size=3, indices=(), features=()), order=(1, 0), predicted_us=(80.0, 50.0),
        )
    )  # fmt: skip
    low = next(figure for figure in written.run.trials()[1].figures if figure.metric == "latency.p5")
    page = page_of(written)
    assert "settled on width=16 , with 0.5 bits still open" in page.text
    assert "1 1.0000 1.00 1.5 140 % width=16 2 1.0000 0.5000" in page.text
    assert f"1 width=16 80 us (predicted) {low} {low.value / 80:.2f}x 85.00 % torch" in page.text
    assert ("aria-label", "what the supernet is expected to cost, epoch by epoch") in page.attributes
    scores = [
        {name: Accuracy(value=value, kind="torch", split="validation", samples=9, method="m") for name, value in round_}
        for round_ in ((("4", 0.5), ("assistant, 4", 0.625)), (("assistant, 4", 0.75),))
    ]
    written.run.write(TeacherTuningRecord(trial=1, rounds=tuple(scores), temperature=4.0, assistant=True))
    text = page_of(written).text
    assert "1 width=16 the assistant, temperature 4 4: 50.00 %, assistant, 4: 62.50 % torch ; then" in text


@pytest.mark.slow
def test_a_chain_of_teachers_is_shown_in_its_order(write: Write) -> None:
    from edgekd.records import digest_json
    from edgekd.store.records import TeacherScore, TeachersRecord

    written = write()
    written.whole()
    first = TeacherScore(name="<large>", identity=digest_json(1), score=0.9375, samples=512)
    last = TeacherScore(name="assistant", identity=digest_json(2), score=None, samples=0)
    written.run.write(TeachersRecord(teachers=(first, last)))
    page = page_of(written)
    assert "Who taught" in page.headings
    assert re.search(r"top1 samples 1 <large> \w{64} 93.75 % 512 2 assistant", page.text)
    assert "over its assistants" in page.text


def test_cautions_and_the_model_as_it_came_stand_beside_the_certificate(write: Write) -> None:
    written = write()
    run = written.whole()
    path = run.folder / "bundle" / CERTIFICATE
    certificate = read_record(path, Certificate)
    own = certificate.accuracy.but(value=0.97)
    write_json(path, certificate.but(own=own, cautions=("hardly better than chance: 8.3%",)))
    assert "Caution: hardly better than chance: 8.3%." in " ".join(page_of(written).text.split())
    answer = RunAnswer(
        run=run.folder,
        outcome=run.outcome(),
        certificate=read_record(path, Certificate),
        bundle=None,
        report=run.folder / "report.html",
        own="own model  97.0% test, 85 us p5, 18 KiB -> 94.0% test, 40 us p5, 5 KiB",
    )
    assert "caution    hardly better than chance: 8.3%" in answer.lines()
    assert any(line.startswith("own model  97.0%") for line in answer.lines())
