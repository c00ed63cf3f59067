"""Time spent, left, and kept for the finalists."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.evidence import accuracy_of
from edgekd.ir.space import Arch
from edgekd.search.budget import (
    Budget,
    Speed,
    finalists_within,
    reserve_s,
    share_within,
    shortlist_s,
    too_short,
    training_limit_s,
)
from edgekd.search.replay import replay
from edgekd.search.space.feasible import P5, p5_us
from edgekd.store.records import TrialRecord
from edgekd.store.run import Run
from edgekd.testing.fakes.clock import FakeClock


def _speed(lab: Any, trials: Sequence[TrialRecord], p95: float | None = None) -> Speed:
    """Speed of a lab's run. ``p95``: its factor to the 5th percentile; by default the one the run measured."""
    deployments = Run.open(lab.folder).deployments()
    assert deployments is not None
    return Speed.of(lab.plan, trials, lab.target, deployments.tails if p95 is None else {"latency.p95": p95})


def test_pauses_between_resumptions_are_not_counted() -> None:
    clock = FakeClock(1000.0)
    budget = Budget(60.0, clock, spent_s=20.0)
    clock.advance(5.0)
    assert budget.spent_s() == pytest.approx(25.0)
    assert budget.left_s() == pytest.approx(35.0)
    assert Budget(None, clock).left_s() == float("inf")


def test_a_budget_that_holds_no_candidate_is_said(make_lab: Callable[..., Any]) -> None:
    plan = make_lab().plan
    assert too_short(plan, 1.0).startswith("1 s to spend, and one candidate takes about ")
    assert too_short(plan, 3600.0) == too_short(plan, None) == ""
    least_s = reserve_s(plan, Speed(), 0, untouched=1)
    assert (too_short(plan, least_s), bool(too_short(plan, least_s - 0.1))) == ("", True)


@pytest.mark.slow
def test_the_reserve_grows_with_the_recipe_and_shrinks_with_speed(make_lab: Callable[..., Any]) -> None:
    lab = make_lab()
    lab.search()
    trials = Run.open(lab.folder).trials()
    slow = _speed(lab, [t.but(images_per_s=100.0) for t in trials])
    fast = _speed(lab, [t.but(images_per_s=1000.0) for t in trials])
    assert reserve_s(lab.plan, slow, 1) - reserve_s(lab.plan, fast, 1) == pytest.approx(
        1.05 * 90.0 + shortlist_s(lab.plan, slow) - shortlist_s(lab.plan, fast)
    )
    assert reserve_s(lab.plan, fast, 3) > 2 * reserve_s(lab.plan, fast, 1) * 0.9
    longer = lab.plan.but(refine_images=20_000)
    assert reserve_s(longer, fast, 1) - reserve_s(lab.plan, fast, 1) == pytest.approx(1.05 * 10.0)


@pytest.mark.slow
def test_the_pace_is_what_trials_took(make_lab: Callable[..., Any]) -> None:
    lab = make_lab()
    lab.search()
    asked_s = (lab.plan.measure.warmup_ms + lab.plan.measure.rounds * lab.plan.measure.round_ms) / 1e3
    seconds = {"convert": 3.0, "measure": lab.plan.measure.processes * (0.4 + asked_s)}
    trials = [trial.but(seconds=seconds) for trial in Run.open(lab.folder).trials()]
    speed = _speed(lab, trials)
    called_s = statistics.median(low for trial in trials if (low := p5_us(trial.figures)) is not None) / 1e6
    paced = Speed(images_per_s=1000.0, convert_s=3.0, process_s=pytest.approx(0.4), sample_s=called_s)
    assert replace(speed, comparisons=2) == paced
    assert _speed(lab, []) == Speed()
    assert speed.measure_s(lab.plan.measure, 4) == pytest.approx(5 * lab.plan.measure.processes * (0.4 + asked_s))


@pytest.mark.slow
@pytest.mark.parametrize(("p95", "comparisons"), [("120 us", 2), ("100 us", 2), ("1 s", 1), ("1 us", 1)])
def test_a_second_comparison_is_planned_where_a_trial_came_close(
    make_lab: Callable[..., Any], p95: str, comparisons: int
) -> None:
    """The trial's p95 is 110 us, whatever the size of its file."""
    lab = make_lab()
    lab.search()
    (trial, *_) = [one for one in Run.open(lab.folder).trials() if p5_us(one.figures)]
    figures = [one.but(value=100.0) if one.metric == P5 else one for one in trial.figures]
    for metric, value in (("operators.float", 0.0), ("delegation", 1.0)):
        figures.append(accuracy_of(value, figures[0].subject, "counted").but(metric=metric))
    size = next(one.value for one in figures if one.metric == "size.file")
    budgets = {"latency": {"p95": p95}, "size": {"file": f"{size:.0f} B"}}
    lab.target = make_lab(target={"budgets": budgets, "fully_integer": True, "delegation": "full"}).target
    speed = _speed(lab, [trial.but(figures=tuple(figures))], p95=1.1)
    assert speed.comparisons == comparisons
    batch_s = speed.measure_s(lab.plan.certify, 2) + speed.measure_s(lab.plan.certify, 1)
    assert speed.compared_s(lab.plan, 1) == pytest.approx(comparisons * batch_s)
    untouched = trial.candidate.but(plan=trial.candidate.plan.but(untouched=True))
    unknown = [trial.but(candidate=untouched), trial.but(figures=(), outcome="crashed")]
    assert _speed(lab, unknown).comparisons == Speed().comparisons == 2


@pytest.mark.slow
def test_models_as_they_came_take_time_without_training_and_set_no_pace(make_lab: Callable[..., Any]) -> None:
    lab = make_lab()
    lab.search()
    trials = Run.open(lab.folder).trials()
    speed = _speed(lab, trials)
    beside = reserve_s(lab.plan, speed, 2, untouched=3) - reserve_s(lab.plan, speed, 2)
    measuring_s = speed.measure_s(lab.plan.certify, 10) - speed.measure_s(lab.plan.certify, 4)
    assert beside == pytest.approx(3 * (2.5 * speed.convert_s + 2.0) + speed.comparisons * measuring_s)
    own = trials[0].candidate.but(plan=trials[0].candidate.plan.but(untouched=True))
    slow = {"convert": 60.0, "measure": 600.0}
    untouched = [trials[0].but(candidate=own, images_per_s=1.0, seconds=slow) for _ in range(100)]
    assert _speed(lab, [*untouched, *trials]) == speed
    assert _speed(lab, untouched).images_per_s == 1.0


@pytest.mark.slow
def test_the_reserve_counts_what_is_scored(make_lab: Callable[..., Any]) -> None:
    """A forward pass is a third of a training step."""
    lab = make_lab()
    lab.search()
    trials = Run.open(lab.folder).trials()
    speed = _speed(lab, trials)
    scored = lab.plan.but(validation_images=30_000, test_images=3000)
    added = reserve_s(scored, speed, 1) - reserve_s(lab.plan, speed, 1)
    assert added == pytest.approx(30_000 / 3000 + 3000 / 3000 + 33_000 * speed.sample_s)
    own = scored.but(original=Arch.of({"depth": 3, "width": 64, "wide": 4}))
    assert reserve_s(own, speed, 1) - reserve_s(scored, speed, 1) == pytest.approx(3000 / 3000)
    late = Budget(0.0, lambda: 0.0)
    assert share_within(scored.but(refine_images=0), speed, late, 1, 60.0, ensured=False) == 1.0, "nothing is trained"


def test_a_periodic_load_takes_its_time() -> None:
    plan = MeasurePlan(processes=5, rounds=10, min_calls=5, load=Load(pattern="periodic", rate_hz=1.0))
    calling_s = plan.warmup_ms / 1e3 + 10 * 5.0  # ten rounds of five calls, a second apart
    back_to_back_s = (plan.warmup_ms + 10 * plan.round_ms) / 1e3
    speed = Speed(process_s=0.5)
    assert speed.measure_s(plan.but(sentinel=False), 3) == pytest.approx(5 * 3 * (0.5 + calling_s))
    assert speed.measure_s(plan, 3) == pytest.approx(5 * (3 * (0.5 + calling_s) + 0.5 + back_to_back_s))


@pytest.mark.slow
def test_a_shortlist_is_made_only_where_it_is_cheap_beside_refining(make_lab: Callable[..., Any]) -> None:
    lab = make_lab()
    lab.search()
    speed = _speed(lab, Run.open(lab.folder).trials())
    assert shortlist_s(lab.plan, speed) == 0.0
    long = lab.plan.but(refine_images=1_000_000)
    assert 0.0 < shortlist_s(long, speed) < 250.0
    assert reserve_s(long, speed, 1) > 1000.0 + shortlist_s(long, speed)


def test_finalists_fit_in_their_share(make_lab: Callable[..., Any]) -> None:
    plan = make_lab(finalists=4).plan
    assert finalists_within(plan, Speed(), None) == 4
    assert finalists_within(plan, Speed(), 1.0) == 1
    counts = [finalists_within(plan, Speed(), total) for total in (50, 100, 200, 400, 800)]
    assert counts == sorted(counts)
    assert counts[-1] == 4


@pytest.mark.slow
def test_a_recipe_longer_than_the_budget_is_cut_to_it(make_lab: Callable[..., Any]) -> None:
    """One finalist is always refined, and its recipe took a run past any budget."""
    lab = make_lab(budget_s=600.0, refine_images=10_000_000, trials=None)
    lab.search()
    run = Run.open(lab.folder)
    ended = run.proposals()
    assert ended.finalists == 1
    assert 0.02 < ended.share < 0.1  # at 1,000 images/s the whole takes 10,500 s
    assert f"cut to {ended.share:.0%} of its epochs" in ended.detail
    assert replay(run).same
    roomy = make_lab(budget_s=600.0, trials=4)
    roomy.search()
    assert Run.open(roomy.folder).proposals().share == 1.0


def test_where_nothing_fits_after_a_cut_recipe_the_end_asks_for_more_time(make_lab: Callable[..., Any]) -> None:
    target = {"budgets": {"latency": {"p95": "1 s"}}, "accuracy": {"floor": 0.9999}}
    lab = make_lab(budget_s=600.0, refine_images=10_000_000, trials=None, target=target)
    outcome = lab.search()
    assert outcome.exit_code == 5
    assert "for want of time: search again with a larger --budget, in another --run" in outcome.detail[-1]
    assert not any("latency floor" in line for line in outcome.detail)  # what was missed is accuracy
    assert replay(Run.open(lab.folder)).same


def test_a_quarter_of_the_budget_trains_where_the_trials_took_all_of_it(make_lab: Callable[..., Any]) -> None:
    """A busy machine: the first trials end after the budget, and a student of two epochs would meet no floor."""
    spent = Budget(180.0, lambda: 0.0, spent_s=280.0)
    plan = make_lab().plan
    short, long = (plan.but(refine_images=images) for images in (20_000, 10_000_000))
    assert share_within(short, Speed(), spent, 1, 60.0, ensured=True) == 1.0
    assert share_within(short, Speed(), spent, 1, 60.0, ensured=False) == 0.05
    assert share_within(long, Speed(), spent, 1, 21_060.0, ensured=True) == 0.05


def test_a_first_batch_past_the_budget_leaves_the_finalist_a_quarter_of_it(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(budget_s=12.0, trials=None)
    lab.search()
    run = Run.open(lab.folder)
    assert run.trials()[-1].ended_s > 12.0
    trained = lab.plan.refine_images / _speed(lab, run.trials()).images_per_s
    assert run.proposals().share == pytest.approx(0.25 * 12.0 / trained, rel=0.1)
    assert replay(run).same


@pytest.mark.slow
@pytest.mark.parametrize("keeps_best", [True, False])
def test_recovery_on_a_machine_that_slows_down_ends_in_time(make_lab: Callable[..., Any], keeps_best: bool) -> None:
    lab = make_lab(budget_s=600.0, refine_images=200_000, trials=8, finalists=1)
    lab.refine_s, lab.keeps_best = 5000.0, keeps_best
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert outcome.exit_code == 0
    assert (outcome.seconds < 600.0) == keeps_best
    left = Budget(600.0, lambda: 0.0, spent_s=run.proposals().ended_s)
    limit_s = training_limit_s(lab.plan, _speed(lab, run.trials()), left)
    assert [finalist.ended_early for finalist in run.finalists()] == [keeps_best]
    (took,) = lab.refine_took
    assert took == pytest.approx(limit_s, abs=2.0) if keeps_best else took == 5000.0
    assert any("the time was up" in line for line in lab.lines) == keeps_best


def test_a_quarter_of_the_budget_trains_where_it_is_late(make_lab: Callable[..., Any]) -> None:
    plan = make_lab().plan
    late = Budget(100.0, lambda: 0.0, spent_s=95.0)
    assert training_limit_s(plan, Speed(), late) == 25.0
    assert training_limit_s(plan, Speed(), late, ensured=False) == 0.0, "an untouched model fits"
    early = Budget(1000.0, lambda: 0.0)
    assert training_limit_s(plan, Speed(), early, 1) - training_limit_s(plan, Speed(), early, 3) == pytest.approx(
        2 * (Speed().measure_s(plan.certify, 6) - Speed().measure_s(plan.certify, 2))
    )
    assert training_limit_s(plan, Speed(), Budget(None, lambda: 0.0)) == float("inf")


@pytest.mark.slow
def test_a_search_that_finds_nothing_to_train_ends_in_time(make_lab: Callable[..., Any]) -> None:
    whole = Arch.of({"depth": 3, "width": 64, "wide": 4})
    budgets = {"latency": {"p95": "1 s"}, "size": {"file": "1 GiB"}}
    lab = make_lab(budget_s=300.0, refine_images=10_000_000, original=whole, target={"budgets": budgets}, trials=None)
    lab.slow_when = lambda candidate, _: 1.0 if candidate.plan.untouched else 1e6
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert outcome.exit_code == 0
    assert run.proposals().reason == "time"
    assert all(finalist.candidate.plan.untouched for finalist in run.finalists())
    assert run.proposals().ended_s > 0.4 * 300.0
    assert outcome.seconds < 300.0


@pytest.mark.slow
def test_a_model_as_it_came_does_not_end_proposing_before_anything_is_trained(make_lab: Callable[..., Any]) -> None:
    whole = Arch.of({"depth": 3, "width": 64, "wide": 4})
    budgets = {"latency": {"p95": "1 s"}, "size": {"file": "1 GiB"}}
    lab = make_lab(budget_s=600.0, refine_images=10_000_000, original=whole, target={"budgets": budgets}, trials=None)
    lab.search()
    run = Run.open(lab.folder)
    assert any(not trial.candidate.plan.untouched for trial in run.trials())
    assert any(not finalist.candidate.plan.untouched for finalist in run.finalists())


@pytest.mark.parametrize("reference_archs", [1, 3])  # one is the smallest network, three have the largest
@pytest.mark.parametrize(("p95", "said"), [("200 ms", True), ("400 us", False)])
def test_a_space_far_below_the_budget_is_said_at_the_start(
    make_lab: Callable[..., Any], p95: str, said: bool, reference_archs: int
) -> None:
    lab = make_lab(target={"budgets": {"latency": {"p95": p95}}}, trials=4, reference_archs=reference_archs)
    lab.search()
    lines = [line for line in lab.lines if "your space ends at" in line]
    assert bool(lines) == said
    assert all(line.endswith("of the latency budget: widen it") for line in lines)
