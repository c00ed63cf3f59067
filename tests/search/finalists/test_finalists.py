"""Which trials earn a full recipe, and how well the estimate ranked them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from edgekd.devices._protocol import Measurement
from edgekd.evidence import AccuracyKind, Figure
from edgekd.records import digest_json
from edgekd.search.finalists import selection
from edgekd.search.finalists.order import order_of_finalists, rank_correlation
from edgekd.store.records import Accuracy, FinalistRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer, Verdict, judge


def accuracy(value: float) -> Accuracy:
    return Accuracy(value=value, kind=AccuracyKind.TORCH, split="validation", samples=10, method="short")


def finalist(trial: Any, value: float) -> FinalistRecord:
    return FinalistRecord(
        rank=trial.number + 1,
        trial=trial.number,
        candidate=trial.candidate,
        student=digest_json(trial.number),
        artefact=None,
        curve=(),
        accuracy=accuracy(value),
    )


@pytest.fixture
def run(lab: Any) -> Run:
    lab.search()
    return Run.open(lab.folder)


@pytest.mark.slow
def test_the_pareto_front_comes_first_by_accuracy(run: Run) -> None:
    deployments = run.deployments()
    assert deployments is not None
    order = order_of_finalists(run.header.target, deployments, run.trials())
    scores = [trial.accuracy.value for trial in order if trial.accuracy]
    assert scores[0] == max(t.accuracy.value for t in run.trials() if t.accuracy)
    assert len(order) == len({t.number for t in order}) == sum(t.outcome == "measured" for t in run.trials())
    falls = [i for i in range(1, len(scores)) if scores[i] > scores[i - 1]]
    assert len(falls) <= 1  # once, from the front to the rest


@pytest.mark.slow
def test_what_breaks_a_limit_is_no_finalist(run: Run) -> None:
    deployments = run.deployments()
    assert deployments is not None
    best = order_of_finalists(run.header.target, deployments, run.trials())[0]
    stricter = run.header.target.but(budgets={"size": {"file": f"{(best.size_bytes or 0) - 1} B"}})
    assert best not in order_of_finalists(stricter, deployments, run.trials())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "tau", "words"),
    [
        ((0.5, 0.6, 0.7, 0.8), 1.0, "the estimate ranks"),
        ((0.8, 0.7, 0.6, 0.5), -1.0, "does not rank"),
        ((0.5, 0.5, 0.5, 0.5), None, "all finalists tie"),
        ((0.5, 0.6, 0.8, 0.7), 2 / 3, "the estimate ranks"),
        ((0.5, 0.6, 0.7), None, "too few"),
    ],
)
def test_rank_correlation(run: Run, values: tuple[float, ...], tau: float | None, words: str) -> None:
    trials = [t.but(accuracy=accuracy(0.1 * (i + 1))) for i, t in enumerate(run.trials()[: len(values)])]
    found = rank_correlation(trials, [finalist(t, v) for t, v in zip(trials, values, strict=True)])
    assert found.tau == (pytest.approx(tau) if tau is not None else None)
    assert words in found.detail
    assert found.finalists == len(values)


@pytest.mark.slow
def test_tau_agrees_with_scipy(run: Run) -> None:
    from scipy.stats import kendalltau

    estimates, finals = (0.1, 0.2, 0.2, 0.4, 0.5, 0.6), (0.3, 0.2, 0.4, 0.4, 0.9, 0.5)
    trials = [t.but(accuracy=accuracy(v)) for t, v in zip(run.trials(), estimates, strict=False)]
    found = rank_correlation(trials, [finalist(t, v) for t, v in zip(trials, finals, strict=True)])
    assert found.tau == pytest.approx(kendalltau(estimates, finals).statistic)


@pytest.mark.slow
def test_the_outcome_states_it(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(finalists=5)
    outcome = lab.search()
    assert outcome.estimate is not None
    assert outcome.estimate.tau == pytest.approx(1.0)


@pytest.mark.slow
def test_what_noise_left_undecided_is_measured_again_and_trained_no_more(
    make_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(finalists=2)

    def noisy(target: Target, figures: Sequence[Figure], _: Measurement | None) -> Verdict:
        verdict = judge(target, figures)
        return verdict.but(limits=tuple(one.but(answer=Answer.UNSTABLE) for one in verdict.limits))

    with monkeypatch.context() as disturbed:
        disturbed.setattr(selection, "judge_measured", noisy)
        outcome = lab.search()
    assert outcome.undecided
    assert "give the same command" in outcome.detail[-1]
    refined, run = list(lab.refined), Run.open(lab.folder)
    selection.forget_undecided(run)
    assert run.outcome() is None
    again = lab.search()
    assert (again.exit_code, lab.refined) == (0, refined)
    assert any(finalist.chosen for finalist in run.finalists())
