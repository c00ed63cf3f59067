"""A person's own model as it came is a candidate and a finalist: nothing worse than it is handed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import MeasurePlan, Outcome
from edgekd.evidence import AccuracyKind
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch, Axis, Space
from edgekd.search.finalists import trainer
from edgekd.search.iterative import original
from edgekd.search.plan import analysis_size
from edgekd.search.replay import replay
from edgekd.search.trials import whole_model
from edgekd.search.trials.loop import _fastest_first
from edgekd.search.trials.whole_model import affordable_shares
from edgekd.stages import StageContext
from edgekd.store.records import Accuracy, Deployment
from edgekd.store.run import Run
from edgekd.testing.fakes.device import TimingNoise
from tests.search.conftest import latency_us

WHOLE = Arch.of({"depth": 3, "width": 64, "wide": 4})
ROOMY = {"latency": {"p95": "1 s"}, "size": {"file": "1 GiB"}}


def ruined(lab: Any) -> Any:
    """A recipe that leaves a third of what any model knew."""
    plain = lab._accuracy

    def scored(candidate: Candidate, lost: float, kind: Any) -> Any:
        found = plain(candidate, 0.0, kind)
        return found if candidate.plan.untouched else found.but(value=found.value / 3 + lost)

    lab._accuracy = scored
    return lab


@pytest.fixture
def own(make_lab: Callable[..., Any]) -> Callable[..., Any]:
    return lambda budgets=ROOMY, **changes: ruined(make_lab(original=WHOLE, target={"budgets": budgets}, **changes))


@pytest.mark.slow
def test_a_recipe_that_ruins_it_is_not_what_is_handed_over(own: Any) -> None:
    lab = own()
    outcome = lab.search()
    run = Run.open(lab.folder)
    chosen = next(f for f in run.finalists() if f.chosen)
    assert outcome.exit_code == 0
    assert chosen.candidate.plan.untouched
    assert chosen.candidate.arch == WHOLE
    assert any(not finalist.candidate.plan.untouched for finalist in run.finalists()), "beside those that were trained"
    assert replay(run).same


@pytest.mark.slow
def test_it_is_tried_on_every_kept_deployment_before_anything_is_trained(own: Any) -> None:
    lab = own()
    lab.search()
    run = Run.open(lab.folder)
    deployments, trials = run.deployments(), run.trials()
    assert deployments is not None
    first = [trial for trial in trials if trial.candidate.plan.untouched]
    assert [(t.candidate.backend, t.candidate.plan.precision) for t in first] == [
        (a.backend, a.precision) for a in deployments.kept
    ]
    assert [trial.number for trial in first] == list(range(len(first)))
    assert max(trial.batch for trial in first) < min(trial.batch for trial in trials[len(first) :])
    assert sum(not trial.candidate.plan.untouched for trial in trials) == run.plan().trials


@pytest.mark.slow
def test_a_precision_at_which_it_fits_is_found_without_training(own: Any) -> None:
    lab = own({"size": {"file": "120 KiB"}})  # float32 takes four times as much
    lab.search()
    chosen = next(f for f in Run.open(lab.folder).finalists() if f.chosen)
    assert chosen.candidate.plan.untouched
    assert chosen.candidate.plan.precision is Precision.INT8


@pytest.mark.slow
def test_where_it_does_not_fit_the_search_goes_on_without_it(own: Any) -> None:
    lab = own({"latency": {"p95": "60 us"}, "size": {"file": "40 KiB"}})
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert outcome.exit_code == 0
    assert not next(f for f in run.finalists() if f.chosen).candidate.plan.untouched
    assert replay(run).same


@pytest.mark.slow
def test_one_that_is_improved_by_training_loses_to_it(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(original=WHOLE, target={"budgets": ROOMY})
    plain = lab._accuracy
    lab._accuracy = lambda c, lost, kind: plain(c, lost - (0.1 if c.plan.untouched else 0.0), kind)
    lab.search()
    assert not next(f for f in Run.open(lab.folder).finalists() if f.chosen).candidate.plan.untouched


@pytest.mark.slow
def test_a_search_stopped_again_and_again_decides_alike(own: Any) -> None:
    whole, parts = own(), own()
    whole.search()
    parts.search_through_stops(3)
    a, b = Run.open(whole.folder), Run.open(parts.folder)
    assert [t.candidate for t in a.trials()] == [t.candidate for t in b.trials()]
    assert [f.candidate for f in a.finalists()] == [f.candidate for f in b.finalists()]
    assert replay(b).same


LONG = 1_000_000  # images a refinement trains on: a thousand seconds, before which a shortlist is measured


def on_four_deployments(make_lab: Callable[..., Any], **changes: Any) -> Any:
    """No deployment is slower than another on every arch: all are kept, and the whole model is tried on each."""
    lab = make_lab(original=WHOLE, target={"budgets": ROOMY}, **changes)

    def latency(job: Any) -> float:
        candidate = lab.candidates[job.artefact.sha256]
        slower = 1.1 if (candidate.arch["width"] > 32) == (candidate.backend.runtime == "litert") else 1.0
        base = 80.0 if candidate.plan.precision is Precision.INT8 else 100.0
        return base * slower * lab.slow_when(candidate, lab.measuring)

    lab.latency = latency
    return lab


@pytest.mark.slow
def test_the_best_three_of_it_are_finalists_and_none_takes_the_place_of_one_that_the_shortlist_fails(
    make_lab: Callable[..., Any],
) -> None:
    lab = on_four_deployments(make_lab, refine_images=LONG, finalists=1)

    def factor(candidate: Candidate, plan: MeasurePlan | None) -> float:
        longer = plan is not None and plan.processes == lab.plan.certify.processes
        failing = candidate.plan.untouched and candidate.plan.precision is Precision.FLOAT32
        return 1e6 if longer and failing and candidate.backend.runtime == "litert" else 1.0

    lab.slow_when = factor
    lab.search()
    run = Run.open(lab.folder)
    assert [trial.candidate.plan.untouched for trial in run.trials()][:5] == [True] * 4 + [False]
    assert [finalist.candidate.plan.untouched for finalist in run.finalists()] == [True, True, False]
    assert replay(run).same


@pytest.mark.slow
def test_its_deployments_that_settle_at_one_bring_no_further_training(make_lab: Callable[..., Any]) -> None:
    lab = on_four_deployments(make_lab, finalists=1, recheck=True)
    lab.search()
    run = Run.open(lab.folder)
    assert run.rechecks(), "the whole model in float32 is faster on one runtime, and goes on there alone"
    assert [finalist.candidate.plan.untouched for finalist in run.finalists()].count(False) == 1
    assert len(run.finalists()) < 4


class Inherited:
    """A family whose whole model is `WHOLE`."""

    name, inherits = "resnet", True

    def original(self, spec: Any) -> Arch:
        return WHOLE

    def left_out(self, spec: Any) -> tuple[tuple[str, str], ...]:
        return ()

    def space(self, spec: Any) -> Space:
        return Space(axes=(Axis(name="width", choices=(1, 2)),))


@pytest.fixture
def relative(make_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Searches for a share of what the whole model takes; how it was measured is in ``lab.plans``."""
    score = Accuracy(value=0.9, kind=AccuracyKind.TORCH, split="validation", samples=1000, method="on paper")
    monkeypatch.setattr(original, "new_student", lambda *_: None)
    monkeypatch.setattr(original, "score_student", lambda *_: score)

    def made(**target: Any) -> Any:
        lab = make_lab(original=WHOLE, target=target)
        lab.family, lab.task = Inherited(), SimpleNamespace(spec=lab.header().task, split=lab.task.split)
        return lab

    return made


@pytest.mark.slow
def test_a_share_of_own_is_the_same_limit_after_stops_and_in_a_replay(relative: Callable[..., Any]) -> None:
    asked = {"budgets": {"latency": {"p50": "60 % of own"}}, "accuracy": {"drop": "30 %"}}
    whole, parts = relative(**asked), relative(**asked)
    whole.search()
    parts.search_through_stops(3)
    a, b = Run.open(whole.folder), Run.open(parts.folder)
    own = a.original()
    assert own is not None
    (latency, floor) = a.target.limits
    fastest = min(r.p5_us.value for r in own.observations if r.p5_us)
    assert latency.bound == pytest.approx(0.6 * fastest, rel=0.01)
    assert floor.bound == pytest.approx(0.6)
    assert b.target == a.target != a.header.target
    assert [f.candidate for f in a.finalists()] == [f.candidate for f in b.finalists()]
    assert replay(a).same
    assert replay(b).same
    b.write(own.but(target=a.target.but(accuracy=None)))
    assert next(step.name for step in replay(Run.open(parts.folder)).steps if step.differ) == "own"


@pytest.mark.slow
@pytest.mark.parametrize(("p50", "processes"), [("60 % of own", 5), ("1 ms", 3)])
def test_only_a_share_of_own_takes_a_careful_measurement(
    relative: Callable[..., Any], p50: str, processes: int
) -> None:
    lab = relative(budgets={"latency": {"p50": p50}}, accuracy={"drop": "30 %"})
    lab.search()
    own = Run.open(lab.folder).original()
    assert own is not None
    assert [observation.measurement.plan.processes for observation in own.observations] == [processes] * 2


@pytest.mark.slow
def test_where_the_whole_model_clearly_misses_it_is_not_tried_again(relative: Callable[..., Any]) -> None:
    """LiteRT takes half as long at int8, and keeps a limit that both runtimes miss by far in float32."""
    lab = relative(budgets={"latency": {"p50": "60 % of own"}}, accuracy={"drop": "60 %"})
    lab.plan = lab.plan.but(largest_first=True, skips_missed=True)
    lab.search()
    run = Run.open(lab.folder)
    whole = [trial.candidate for trial in run.trials() if trial.candidate.arch == WHOLE]
    assert {candidate.plan.precision for candidate in whole} == {Precision.INT8}
    assert any(candidate.plan.untouched for candidate in whole)
    proposed = next(trial.candidate for trial in run.trials() if not trial.candidate.plan.untouched)
    assert proposed in whole, "first where the whole model fits"
    slow = run.original().observations[0].deployment
    begun = next(trial for trial in run.trials() if Deployment.of(trial.candidate) == slow)
    share = begun.features.macs / max(row.macs for row in run.features().features)
    assert 0.5 < share <= 0.6, "the largest arch that the share of its latency leaves room for"
    assert replay(run).same
    plan, deployments, trial = run.plan(), run.deployments(), run.trials()[0]
    assert slow in affordable_shares(run, plan, deployments, (), 0)
    float_own = trial.candidate.but(backend=slow.backend, plan=trial.candidate.plan.but(precision=slow.precision))
    faster = trial.but(candidate=float_own)  # with the figures of int8
    assert slow not in affordable_shares(run, plan, deployments, [faster], 1), "load makes a measurement slower"
    assert slow in affordable_shares(run, plan, deployments, [faster], 0)


@pytest.mark.slow
def test_a_search_goes_on_until_something_fits_that_can_be_trained(own: Any) -> None:
    lab, proposed = own(budget_s=600.0, refine_images=10_000_000, trials=None), list[Candidate]()

    def factor(candidate: Candidate, _: MeasurePlan | None) -> float:
        if Run.open(lab.folder).trials() and not candidate.plan.untouched and candidate not in proposed:
            proposed.append(candidate)
        return 1e6 if candidate in proposed[:8] else 1.0

    lab.slow_when = factor
    lab.search()
    run = Run.open(lab.folder)
    assert len(proposed) > 8
    assert any(not finalist.candidate.plan.untouched for finalist in run.finalists())
    assert run.proposals().ended_s < 0.75 * 600.0


@pytest.mark.slow
def test_a_plan_of_before_tries_it_again(relative: Callable[..., Any]) -> None:
    lab = relative(budgets={"latency": {"p50": "60 % of own"}}, accuracy={"drop": "60 %"})
    lab.search()
    run = Run.open(lab.folder)
    own = [trial.candidate for trial in run.trials() if trial.candidate.plan.untouched]
    assert {candidate.plan.precision for candidate in own} == {Precision.FLOAT32, Precision.INT8}
    assert replay(run).same


@pytest.mark.slow
def test_where_nothing_else_is_left_it_is_tried_all_the_same(relative: Callable[..., Any]) -> None:
    """Nothing can be pruned, and it misses everywhere: the trials say by how much."""
    lab = relative(budgets={"latency": {"p50": "10 % of own"}}, accuracy={"drop": "60 %"})
    axes = tuple(Axis(name=name, choices=(choice,)) for name, choice in WHOLE.choices)
    lab.plan = lab.plan.but(axes=axes, largest_first=True, skips_missed=True)
    outcome = lab.search()
    assert outcome.exit_code == 5
    assert Run.open(lab.folder).trials()
    assert "nearest" in " ".join(outcome.detail)


@pytest.mark.slow
def test_a_stopped_search_leaves_out_the_same(relative: Callable[..., Any]) -> None:
    asked = {"budgets": {"latency": {"p50": "60 % of own"}}, "accuracy": {"drop": "60 %"}}
    runs = []
    for every in (None, 3):
        lab = relative(**asked)
        lab.plan = lab.plan.but(largest_first=True, skips_missed=True, batch=1)
        lab.search() if every is None else lab.search_through_stops(every)
        runs.append([trial.candidate for trial in Run.open(lab.folder).trials()])
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_it_is_tried_batch_by_batch(make_lab: Callable[..., Any]) -> None:
    lab = on_four_deployments(make_lab, batch=3, skips_missed=True)
    lab.search()
    run = Run.open(lab.folder)
    own = [(trial.number, trial.batch) for trial in run.trials() if trial.candidate.plan.untouched]
    assert own == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert run.trials()[4].batch == 2
    assert replay(run).same


@pytest.fixture
def whole_first(relative: Callable[..., Any]) -> Callable[..., Any]:
    def made(p50: str = "60 % of own") -> Any:
        lab = relative(budgets={"latency": {"p50": p50}}, accuracy={"drop": "60 %"})
        lab.plan = lab.plan.but(largest_first=True, skips_missed=True, whole_first=True)
        lab.files_alike = True
        return lab

    return made


@pytest.mark.slow
def test_the_whole_model_is_the_first_reference_arch_and_is_not_measured_again(whole_first: Callable[..., Any]) -> None:
    lab = whole_first()
    lab.search()
    run = Run.open(lab.folder)
    (first, *others), trial = run.reference_archs(), run.trials()[0]
    assert first.arch == WHOLE
    assert WHOLE not in [each.arch for each in others]
    assert trial.candidate.plan.untouched
    observed = {each.deployment: each for each in first.observations}[Deployment.of(trial.candidate)]
    assert trial.measurement == observed.measurement
    assert trial.outcome == "measured"
    assert trial.accuracy is not None
    assert trial.seconds["measure"] == observed.seconds > 0.0
    assert replay(run).same
    parts = whole_first()
    parts.search_through_stops(3)
    assert [t.candidate for t in Run.open(parts.folder).trials()] == [t.candidate for t in run.trials()]


@pytest.mark.slow
def test_nothing_is_predicted_before_the_measured_whole_model_was_tried(whole_first: Callable[..., Any]) -> None:
    """Its first trial is what a person waits for."""
    lab = whole_first()
    lab.plan = lab.plan.but(predict=True, reference_archs=6, time_is_bounded=True)
    lab.search()
    run = Run.open(lab.folder)
    first, fits = run.trials()[0], [record.batch for record in run.predictors()]
    assert first.candidate.plan.untouched
    assert first.measurement in [each.measurement for each in run.reference_archs()[0].observations]
    assert fits
    assert fits[0] == first.batch + 1
    assert replay(run).same


def test_fewer_cut_outs_of_a_model_than_archs_of_a_family_are_analysed(relative: Callable[..., Any]) -> None:
    plan = relative(budgets={"latency": {"p50": "60 % of own"}}).plan
    assert [analysis_size(plan, seconds) for seconds in (30, 300, 3600, None)] == [128, 600, 1024, 1024]
    family = plan.but(original=None)
    assert [analysis_size(family, seconds) for seconds in (30, 300, 3600, None)] == [128, 600, 4096, 4096]


@pytest.mark.slow
@pytest.mark.parametrize("why", ["over", "unstable", "other bytes", "p50 over"])
def test_a_measurement_that_does_not_settle_it_is_made_again(
    whole_first: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It misses by less than a busy machine may add, or the machine changed under it."""
    lab = whole_first("55 % of own")

    def disturbed(*_: object) -> float:
        run = Run.open(lab.folder)
        return 1.2 if run.original() is not None and not run.reference_archs() else 1.0

    if why == "unstable":
        monkeypatch.setattr(whole_model, "is_unstable", lambda _: True)
    elif why == "over":
        lab.slow_when = disturbed
    elif why == "p50 over":  # by other work beside half of the calls, of which the 5th percentile knows nothing
        monkeypatch.setattr(whole_model, "violations", lambda *_: {"latency.p50": 0.1})
    lab.files_alike = why != "other bytes"
    lab.search()
    run = Run.open(lab.folder)
    first, trial = run.reference_archs()[0], run.trials()[0]
    assert (first.arch, trial.candidate.arch) == (WHOLE, WHOLE)
    assert trial.measurement not in [each.measurement for each in first.observations]


@pytest.mark.slow
def test_a_whole_model_that_does_not_run_is_not_measured_first(whole_first: Callable[..., Any]) -> None:
    """Or every backend would be dropped, although smaller archs run."""
    lab = whole_first("1 ms")
    lab.outcomes = lambda candidate: Outcome.CRASHED if candidate.arch == WHOLE else Outcome.OK
    lab.search()
    run = Run.open(lab.folder)
    assert run.reference_archs()[0].arch != WHOLE
    assert any(trial.outcome == "measured" for trial in run.trials())
    assert replay(run).same


@pytest.mark.slow
def test_a_training_keeps_its_start_where_that_meets_the_limits(
    whole_first: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = whole_first()
    lab.search()
    run = Run.open(lab.folder)
    untouched = next(trial for trial in run.trials() if trial.candidate.plan.untouched)
    whole = next(t.candidate for t in run.trials() if t.candidate.arch == WHOLE and not t.candidate.plan.untouched)
    smaller = next(t.candidate for t in run.trials() if t.candidate.arch != WHOLE)
    asked = list[bool]()
    monkeypatch.setattr(trainer, "stage_context", lambda *_: StageContext(*[None] * 9))
    monkeypatch.setattr(trainer, "run_recipe", lambda _, __, where, ___: asked.append(where.keeps_start))
    monkeypatch.setattr(trainer, "calibrating", lambda recipe: recipe)
    nothing: Any = None
    context: Any = SimpleNamespace(
        recipe=(), family=SimpleNamespace(inherits=False), task=SimpleNamespace(spec=None), seed=0
    )
    monkeypatch.setattr(trainer, "new_student", lambda *_: None)
    asking = trainer.RecipeTrainer(run, context, nothing, nothing, nothing)
    for candidate in (whole, smaller, untouched.candidate):
        asking._train(candidate, Precision.INT8)
    replace(asking, start=lab)._train(whole, Precision.INT8)  # which was trained before
    below = untouched.accuracy.but(value=0.1)  # the model's own score is 0.9, and may drop by 60 %
    run.write(untouched.but(accuracy=below))
    asking._train(whole, Precision.INT8)
    assert asked == [True, False, False, False, False]


class _Answering:
    """A stage whose teacher takes its time to answer, and that says how far the search was then."""

    name, epochs, passes = "answering", 10, 10

    def __init__(self, lab: Any, seconds: float) -> None:
        self.lab, self.seconds, self.seen = lab, seconds, list[int]()

    def prepare(self, _: Any) -> None:
        self.seen.append(len(Run.open(self.lab.folder).trials()))
        self.lab.clock.advance(self.seconds)

    def shortened(self, _: int) -> Any:
        return self


@pytest.mark.slow
def test_the_teacher_is_asked_after_the_model_was_tried_as_it_came(own: Any) -> None:
    lab = own()
    stage = _Answering(lab, 500.0)
    lab.recipe = (stage,)
    lab.search()
    trials = Run.open(lab.folder).trials()
    untouched = [trial for trial in trials if trial.candidate.plan.untouched]
    assert untouched
    assert stage.seen == [len(untouched)], "once, before the first that is trained"
    assert max(trial.ended_s for trial in untouched) < 500.0


@pytest.mark.slow
def test_where_the_teachers_answers_took_all_the_time_nothing_is_trained(own: Any) -> None:
    lab = own(budget_s=300.0, trials=None)
    lab.recipe = (_Answering(lab, 290.0),)
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert outcome.exit_code == 0
    assert all(trial.candidate.plan.untouched for trial in run.trials())
    assert replay(run).same


@pytest.mark.slow
def test_training_that_would_take_longer_than_is_left_is_not_begun(own: Any) -> None:
    lab = own(budget_s=400.0, trials=None, refine_images=1_000_000)  # an epoch is 100 s a candidate, four at once
    lab.recipe = (_Answering(lab, 0.0),)
    lab.search()
    assert all(trial.candidate.plan.untouched for trial in Run.open(lab.folder).trials())


@pytest.mark.slow
def test_where_the_untouched_model_misses_the_floor_training_is_begun_whatever_it_takes(
    make_lab: Callable[..., Any],
) -> None:
    """A model that fits in time at a precision that costs it too much accuracy is nothing that may be handed over."""
    lab = make_lab(
        original=WHOLE,
        target={"budgets": ROOMY, "accuracy": {"floor": 0.85}},  # the whole model: 0.83 untouched, 0.87 trained
        budget_s=400.0,
        trials=None,
        refine_images=1_000_000,  # as above
    )
    lab.recipe = (_Answering(lab, 0.0),)
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert {trial.candidate.plan.untouched for trial in run.trials()} == {True, False}
    assert outcome.exit_code == 0
    assert replay(run).same


@pytest.mark.slow
def test_a_model_of_ones_own_is_tried_before_more_reference_archs_where_they_take_long(own: Any) -> None:
    lab = own(budget_s=3000.0)
    slow = lab.make
    lab.make = lambda candidate, path: (lab.clock.advance(20.0), slow(candidate, path))[1]
    lab.search()
    run = Run.open(lab.folder)
    assert len(run.reference_archs()) == 1
    assert run.trials()[0].candidate.plan.untouched
    assert replay(run).same


@pytest.mark.slow
@pytest.mark.parametrize("spared", [True, False])
def test_a_miss_within_the_interval_is_left_to_a_longer_measurement(make_lab: Callable[..., Any], spared: bool) -> None:
    """A busy machine's short measurement was taken for a miss, and a model that fits untouched was pruned."""
    plan = CompressionPlan(precision=Precision.INT8, untouched=True)
    whole = Candidate(family="resnet", arch=WHOLE, plan=plan, backend=Backend.model_validate("litert/xnnpack"))
    lab = make_lab(
        original=WHOLE, target={"budgets": {"latency": {"p50": f"{latency_us(whole)} us"}}}
    )  # at p50 5 % over
    lab.plan = lab.plan.but(whole_undecided=spared)
    lab.noise = TimingNoise(low=0.15)
    lab.slow_when = lambda _, asked: 0.5 if asked == lab.plan.certify.but(profile=False) else 1.0
    lab.search()
    run = Run.open(lab.folder)
    (trial,) = [t for t in run.trials() if t.candidate.plan == plan and t.candidate.backend == whole.backend]
    assert (trial.outcome, trial.undecided) == (("measured", True) if spared else ("over-budget", False))
    assert any(finalist.trial == trial.number for finalist in run.finalists()) is spared
    assert replay(run).same
    other = trial.but(undecided=True, figures=[f.but(value=9e9, low=9e9, high=9e9) for f in trial.figures])
    run.write(other.but(outcome="measured"))
    assert not replay(run).same


def test_files_that_were_timed_as_a_reference_come_first_and_the_fastest_of_them() -> None:
    def own(backend: str, precision: Precision) -> Candidate:
        plan = CompressionPlan(precision=precision, untouched=True)
        return Candidate(family="own", arch=WHOLE, plan=plan, backend=Backend.model_validate(backend))

    slow, half, fast = (
        own("litert/xnnpack", Precision.INT8),
        own("litert/xnnpack", Precision.FLOAT16),
        own("onnxruntime/cpu", Precision.INT8),
    )
    timed = {Deployment.of(slow): 90.0, Deployment.of(fast): 80.0}
    knowledge: Any = SimpleNamespace(whole_us=timed)
    assert _fastest_first([slow, half, fast], knowledge) == [fast, slow]
    assert _fastest_first([half], knowledge) == []
