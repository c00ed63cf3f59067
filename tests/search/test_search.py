"""Whole searches on paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.devices._protocol import MeasurePlan, Outcome
from edgekd.errors import DeviceUnreachable, Diverged, MissingError
from edgekd.export._protocol import ConversionOutcome
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.search.replay import replay
from edgekd.search.trials.sampler import RandomSampler
from edgekd.store.run import Run
from tests.search import conftest


def decisions(folder: Path) -> dict[str, Any]:
    """What was decided, without what a clock or the noise of a batch had a part in."""
    run = Run.open(folder)
    deployments, outcome = run.deployments(), run.outcome()
    assert deployments is not None
    assert outcome is not None
    return {
        "deployments": (deployments.reference_archs, deployments.kept, deployments.dropped),
        "trials": [
            (t.number, t.batch, t.asked, t.candidate, t.outcome, t.detail, t.accuracy, t.sha256) for t in run.trials()
        ],
        "finalists": [(f.rank, f.trial, f.candidate, f.chosen, f.reason) for f in run.finalists()],
        "outcome": (outcome.exit_code, outcome.summary, outcome.chosen, outcome.detail),
    }


@pytest.mark.slow
def test_finds_the_most_accurate_candidate_that_fits(lab: Any) -> None:
    outcome = lab.search()
    run = Run.open(lab.folder)
    assert outcome.exit_code == 0
    assert "% validation . p95" in outcome.summary
    chosen = next(f for f in run.finalists() if f.chosen)
    assert chosen.rank == outcome.chosen
    assert chosen.verdict is not None
    assert chosen.verdict.holds
    fit = [t for t in run.trials() if t.outcome == "measured"]
    assert chosen.trial == max(fit, key=lambda t: t.accuracy.value if t.accuracy else 0).number


@pytest.mark.slow
def test_never_repeats_a_candidate_nor_proposes_a_filtered_one(lab: Any) -> None:
    lab.search()
    run = Run.open(lab.folder)
    candidates = [t.candidate for t in run.trials()]
    assert len(candidates) == len(set(candidates)) == 24
    assert all(t.features.weight_bytes <= 40 * 1024 for t in run.trials())
    filters = run.filters()
    assert filters is not None
    assert filters.filters[0].removed > 0


@pytest.mark.slow
def test_only_what_fits_is_trained(lab: Any) -> None:
    lab.search()
    trained = {t.candidate for t in Run.open(lab.folder).trials() if t.accuracy is not None}
    assert trained == set(lab.estimated)
    assert all(t.outcome == "measured" for t in Run.open(lab.folder).trials() if t.candidate in trained)


@pytest.mark.slow
def test_a_person_sees_which_budget_a_candidate_misses_and_by_what(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(target={"budgets": {"latency": {"p95": "60 us"}}})
    lab.search()
    missed = [trial for trial in Run.open(lab.folder).trials() if trial.outcome == "over-budget"]
    seen = [note for stage, note in lab.notes if stage == "searching" and note.startswith("over-budget")]
    assert len(seen) == len(missed) > 0
    assert all(re.fullmatch(r"over-budget \(latency\.p95 ~\+\d+\.\d %\) @ [\d.]+ [mu]s p5", note) for note in seen)


@pytest.mark.slow
def test_the_slower_int8_deployment_is_dropped_where_size_is_no_point(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(target={"budgets": {"latency": {"p95": "120 us"}}})
    lab.search()
    deployments = Run.open(lab.folder).deployments()
    assert deployments is not None
    assert [str(deployment) for deployment in deployments.kept] == ["litert/xnnpack float32", "litert/xnnpack int8"]
    slower = {str(n.deployment): n for n in deployments.never_slower}["onnxruntime/cpu int8"]
    assert not slower.faster
    assert slower.ratio > 1.0
    assert "1." in next(d.reason for d in deployments.dropped if str(d.deployment) == "onnxruntime/cpu int8")


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3, 7, 20, 50])
def test_stopped_anywhere_and_resumed_decides_the_same(make_lab: Callable[..., Any], every: int) -> None:
    whole, stopped = make_lab(), make_lab()
    whole.search()
    stopped.search_through_stops(every)
    assert decisions(stopped.folder) == decisions(whole.folder)
    # training and refining are finished steps: none is repeated
    assert stopped.refined == whole.refined
    assert len(stopped.estimated) <= len(whole.estimated) + 60 // every


@pytest.mark.slow
@pytest.mark.parametrize(("lower", "cautions"), [(-0.3, 0), (0.5, 1)])
def test_candidates_that_only_guess_are_said_once(
    make_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lower: float, cautions: int
) -> None:
    lab = make_lab()
    scored = conftest.accuracy
    monkeypatch.setattr(conftest, "accuracy", lambda candidate: scored(candidate) - lower)
    lab.search()
    said = [line for line in lab.lines if "and guessing" in line]
    assert len(said) == cautions
    assert all("raise the epochs of search.accuracy" in line for line in said)


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(lab: Any) -> None:
    first = lab.search()
    made = len(lab.made)
    assert lab.search() == first
    assert len(lab.made) == made


@pytest.mark.slow
def test_the_budget_is_kept_with_time_for_the_finalists(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(budget_s=300.0, trials=None, refine_images=20_000)
    outcome = lab.search()
    proposals = Run.open(lab.folder).proposals()
    assert proposals is not None
    assert proposals.reason == "time"
    assert proposals.reserve_s > 2 * 20.0
    assert outcome.seconds <= 300.0
    assert outcome.seconds > 200.0  # and not left unused


@pytest.mark.slow
def test_files_seen_on_the_reference_archs_save_trials_that_are_too_large(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(by_files_seen=True, trials=None, target={"budgets": {"size": {"file": "12.3 KiB"}}})
    lab.search()
    run = Run.open(lab.folder)
    deployments = run.deployments()
    assert deployments is not None
    assert deployments.filters[0].removed > 0
    # the format adds 2,000 bytes however many operators there are, a third of that at the deepest reference arch
    assert all(t.size_bytes is not None and t.size_bytes < 12.3 * 1024 + 1400 for t in run.trials())
    assert replay(run).same


@pytest.mark.slow
def test_surviving_deployments_are_measured_again_on_each_finalist(make_lab: Callable[..., Any]) -> None:
    def near(candidate: Candidate, plan: MeasurePlan | None) -> float:
        """On wide archs int8 takes as long as float32 and a half."""
        slow = candidate.plan.precision is Precision.INT8 and candidate.arch["wide"] >= 3
        return 3.0 if slow else 1.0

    lab = make_lab(recheck=True, target={"budgets": {"latency": {"p95": "150 us"}}})
    lab.slow_when = near
    lab.search()
    run = Run.open(lab.folder)
    trials = {trial.number: trial for trial in run.trials()}
    for finalist in run.finalists():
        assert finalist.candidate.arch == trials[finalist.trial].candidate.arch
        if finalist.candidate.arch["wide"] >= 3:
            assert finalist.candidate.plan.precision is Precision.FLOAT32
    assert run.rechecks()
    assert replay(run).same


@pytest.mark.slow
def test_two_trials_that_settle_at_one_deployment_are_one_finalist(make_lab: Callable[..., Any]) -> None:
    def later(candidate: Candidate, _: MeasurePlan | None) -> float:
        searched = Run.open(lab.folder).proposals() is not None
        return 3.0 if searched and candidate.plan.precision is Precision.INT8 else 1.0

    lab = make_lab(recheck=True, finalists=8, target={"budgets": {"latency": {"p95": "150 us"}}})
    lab.slow_when = later
    lab.search()
    run = Run.open(lab.folder)
    candidates = [finalist.candidate for finalist in run.finalists()]
    assert len(candidates) == 8, "the next trial takes the place"
    assert len(set(candidates)) == 8
    assert all(candidate.plan.precision is Precision.FLOAT32 for candidate in candidates)
    assert replay(run).same


@pytest.mark.slow
def test_a_fully_integer_target_takes_no_file_that_computes_in_float(make_lab: Callable[..., Any]) -> None:
    int8 = tuple(deployment for deployment in make_lab().plan.deployments if deployment.precision is Precision.INT8)
    lab = make_lab(deployments=int8, target={"budgets": {"latency": {"p95": "120 us"}}, "fully_integer": True})
    lab.float_operators = lambda candidate: () if candidate.arch["wide"] == 2 else ("QUANTIZE (input)",)
    assert lab.search().exit_code == 0
    run = Run.open(lab.folder)
    assert {t.candidate.arch["wide"] for t in run.trials() if t.outcome == "measured"} == {2}
    assert any("operators.float" in t.detail for t in run.trials())
    chosen = next(finalist for finalist in run.finalists() if finalist.chosen)
    assert chosen.verdict is not None
    assert {limit.limit.metric: limit.answer.value for limit in chosen.verdict.limits}["operators.float"] == "holds"
    assert replay(run).same


@pytest.mark.slow
def test_a_file_that_does_not_show_its_operators_is_not_fully_integer(make_lab: Callable[..., Any]) -> None:
    int8 = tuple(deployment for deployment in make_lab().plan.deployments if deployment.precision is Precision.INT8)
    lab = make_lab(deployments=int8, target={"budgets": {"latency": {"p95": "120 us"}}, "fully_integer": True})
    assert lab.search().exit_code == 5


@pytest.mark.slow
def test_a_small_budget_refines_fewer(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(budget_s=150.0, trials=None, refine_images=50_000)
    lab.search()
    proposals = Run.open(lab.folder).proposals()
    assert proposals is not None
    assert proposals.finalists == 1
    assert len(lab.refined) == 1


@pytest.mark.slow
def test_an_exhausted_space_ends_the_proposals(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(trials=None, target={"budgets": {"latency": {"p95": "60 us"}, "size": {"file": "3 KiB"}}})
    lab.search()
    run = Run.open(lab.folder)
    proposals = run.proposals()
    assert proposals is not None
    assert proposals.reason == "exhausted"
    assert proposals.trials == len(run.trials())


@pytest.mark.slow
def test_crashes_refusals_and_hangs_are_outcomes_of_trials(lab: Any) -> None:
    def converts(candidate: Candidate) -> ConversionOutcome:
        return ConversionOutcome.HUNG if candidate.arch["wide"] == 2 else ConversionOutcome.OK

    def runs(candidate: Candidate) -> Outcome:
        return Outcome.CRASHED if candidate.arch["width"] == 16 else Outcome.OK

    lab.conversions, lab.outcomes = converts, runs
    outcome = lab.search()
    trials = Run.open(lab.folder).trials()
    assert outcome.exit_code == 0
    assert {"hung", "crashed", "measured"} <= {t.outcome for t in trials}
    for trial in trials:
        if trial.candidate.arch["wide"] == 2:
            assert (trial.outcome, trial.detail) == ("hung", "scripted hung")
        elif trial.candidate.arch["width"] == 16:
            assert (trial.outcome, trial.detail) == ("crashed", "scripted crashed")


def test_no_deployment_at_all_says_why(lab: Any) -> None:
    lab.conversions = lambda _: ConversionOutcome.REFUSED
    with pytest.raises(MissingError, match="scripted refused"):
        lab.search()


@pytest.mark.slow
def test_nothing_fits_names_the_nearest_and_what_would_help(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(target={"budgets": {"latency": {"p95": "20 us"}}})
    outcome = lab.search()
    words = "\n".join(outcome.detail)
    assert outcome.exit_code == 5
    assert outcome.chosen is None
    assert "latency.p95 ~+" in words
    assert "what would help: latency.p95 <= " in words
    assert "latency floor" in words
    assert not lab.estimated


def test_filters_that_leave_nothing_end_the_search_at_once(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(target={"budgets": {"size": {"file": "10 B"}}})
    outcome = lab.search()
    assert outcome.exit_code == 5
    assert not lab.made
    assert any("size.file removed 72" in line for line in outcome.detail)


@pytest.mark.slow
def test_a_finalist_that_fails_in_fresh_processes_is_dropped(lab: Any) -> None:
    """The best holds side by side; when measured for the certificate it is twice as slow."""
    best: list[Candidate] = []

    def slow(candidate: Candidate, plan: MeasurePlan | None) -> float:
        if plan is None or plan.seed != lab.plan.certify.seed or plan.processes < 5:
            return 1.0
        if lab.alone:
            best[:] = best or [candidate]
            return 9.0 if candidate == best[0] else 1.0
        return 1.0

    lab.alone = False
    lab.slow_when = slow
    session = lab.device

    def watched() -> Any:
        device = session()
        real = device.open

        def opened() -> Any:
            inner = real()
            measure = inner.measure

            def counted(jobs: Any, plan: MeasurePlan, progress: Any = None) -> Any:
                lab.alone = len(jobs) == 1
                return measure(jobs, plan, progress)

            inner.measure = counted
            return inner

        device.open = opened
        return device

    lab.device = watched
    outcome = lab.search()
    finalists = Run.open(lab.folder).finalists()
    failed = [f for f in finalists if f.measurement is not None and not f.chosen]
    assert len(failed) == 1
    assert "not in fresh processes" in failed[0].reason
    assert outcome.exit_code == 0
    assert outcome.chosen != failed[0].rank


@pytest.mark.slow
def test_failing_finalists_are_followed_by_further_ones(make_lab: Callable[..., Any]) -> None:
    """The accuracy floor is between what the estimate promised and what the first finalists came to."""
    lab = make_lab(finalists=1)
    refined = lab.refine

    def worse(candidate: Candidate, *others: Any) -> Any:
        from dataclasses import replace

        result = refined(candidate)
        return (
            replace(result, artefact=None, accuracy=None, detail="refused: on paper")
            if len(lab.refined) < 2
            else result
        )

    lab.refine = worse
    outcome = lab.search()
    finalists = Run.open(lab.folder).finalists()
    assert finalists[0].reason == "refused: on paper"
    assert outcome.chosen == 2


@pytest.mark.slow
def test_hundreds_of_trials_are_searched_to_the_end(make_lab: Callable[..., Any]) -> None:
    from edgekd.ir.space import Axis

    axes = (
        Axis(name="depth", choices=(1, 2, 3)),
        Axis(name="width", choices=tuple(range(1, 61))),
        Axis(name="wide", choices=(1, 2, 3, 4)),
    )
    lab = make_lab(axes=axes, trials=400, batch=50, target={"budgets": {"latency": {"p95": "10 ms"}}})
    lab.sampler = RandomSampler()
    assert lab.search().exit_code == 0
    assert len(Run.open(lab.folder).trials()) == 400


@pytest.mark.slow
def test_the_compressed_winner_is_compared_with_its_float_twin(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(
        deployments=tuple(
            deployment for deployment in make_lab().plan.deployments if deployment.precision is Precision.INT8
        )
    )
    lab.search()
    chosen = next(f for f in Run.open(lab.folder).finalists() if f.chosen)
    assert chosen.never_slower is not None
    assert chosen.never_slower.faster == (str(chosen.candidate.backend) == "litert/xnnpack")


@pytest.mark.slow
def test_only_finalists_files_outlast_the_run(lab: Any) -> None:
    lab.search()
    kept = {f.artefact.path.name for f in Run.open(lab.folder).finalists() if f.artefact}
    assert kept
    assert {path.name for path in (lab.folder / "artefacts").iterdir()} == kept


ROOMY = {"budgets": {"latency": {"p95": "10 ms"}}}


def test_a_candidate_that_diverges_is_a_failed_trial(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(trials=8, target=ROOMY)
    estimate = lab.estimate

    def diverging(candidate: Candidate, context: Any) -> Any:
        if len(lab.estimated) == 1:
            lab.estimated.append(candidate)
            raise Diverged("the loss became NaN or infinite in epoch 2 of 4")
        return estimate(candidate, context)

    lab.estimate = diverging
    assert lab.search().exit_code == 0
    (failed,) = [trial for trial in Run.open(lab.folder).trials() if trial.outcome == "diverged"]
    assert failed.accuracy is None
    assert "NaN" in failed.detail


def test_where_all_candidates_diverge_the_search_says_so(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(trials=8, target=ROOMY)

    def diverging(candidate: Candidate, context: Any) -> Any:
        raise Diverged("the loss became NaN or infinite in epoch 1 of 4", "lower the learning rate")

    lab.estimate = diverging
    with pytest.raises(Diverged, match="epoch 1 of 4"):
        lab.search()
    assert [trial.outcome for trial in Run.open(lab.folder).trials() if trial.outcome == "diverged"] == ["diverged"] * 2


@pytest.mark.slow
def test_a_finalist_that_diverges_leaves_the_others(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(finalists=2)
    refined, asked = lab.refine, []

    def diverging(candidate: Candidate, *others: Any) -> Any:
        asked.append(candidate)
        if len(asked) == 1:
            raise Diverged("the loss became NaN or infinite in epoch 40 of 120")
        return refined(candidate)

    lab.refine = diverging
    outcome = lab.search()
    first, *_ = Run.open(lab.folder).finalists()
    assert (first.student, first.artefact, first.chosen) == (None, None, False)
    assert "epoch 40" in first.reason
    assert outcome.exit_code == 0


@pytest.mark.slow
def test_what_was_measured_when_the_device_was_lost_is_said_and_measured_anew(lab: Any) -> None:
    lines: list[str] = []
    lab.line = lines.append
    whole = lab.device

    def lost_later() -> Any:
        device = whole()
        device.disconnect_after = 6
        return device

    lab.device = lost_later
    with pytest.raises(DeviceUnreachable):
        lab.search()
    before = {trial.number for trial in Run.open(lab.folder).trials()}
    lost = {int(found) for line in lines for found in re.findall(r"^lost {7}trial (\d+): .*measured anew later$", line)}
    assert before
    assert lost == {max(before) + step for step in (1, 2, 3, 4)}  # a batch
    lab.device = whole
    assert lab.search().exit_code == 0
    trials = Run.open(lab.folder).trials()
    assert before | lost <= {trial.number for trial in trials}
    assert len({trial.candidate for trial in trials}) == len(trials)
