"""Order of finalists: which trials get a full recipe, and the record of each result.

Reads trials/*.json, deployments.json, proposals.json and the target; writes finalists/*.json. Accuracy is scored on the
exported file in its runtime, on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekd.errors import Diverged
from edgekd.events import Events, stop_if_asked
from edgekd.ir.plan import Candidate
from edgekd.search._protocol import FinalistTrainer, Refined
from edgekd.search.budget import Budget
from edgekd.search.space.feasible import is_feasible, p5_us
from edgekd.store.records import DeploymentsRecord, FinalistRecord, RankCorrelation, TrialRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target

__all__ = ["NO_TRIAL", "as_it_came_first", "as_they_came", "order_of_finalists", "rank_correlation", "refine_one"]

NO_TRIAL = -1
_AS_IT_CAME = 3
_FEWEST_FOR_TAU = 4  # three can be in order by luck once in six


def order_of_finalists(
    target: Target, deployments: DeploymentsRecord, trials: Sequence[TrialRecord]
) -> tuple[TrialRecord, ...]:
    """Feasible trials, best first: the Pareto front of accuracy, latency and size by accuracy, then the rest likewise.

    Ties in accuracy go to the faster, then the smaller, then the earlier trial.
    """
    fit = [t for t in trials if t.accuracy is not None and is_feasible(target, t, deployments.tails)]
    merits = {trial.number: _merits(trial) for trial in fit}
    dominated = {n for n, mine in merits.items() if any(_dominates(other, mine) for other in merits.values())}
    return tuple(sorted(fit, key=lambda trial: (trial.number in dominated, *_by_accuracy(trial))))


def as_it_came_first(order: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the order, with the best trials of the untouched model in front, so that nothing worse is delivered.

    They cost no training, so they are added to the wanted number of finalists, a few at most.
    """
    own = [trial for trial in order if trial.candidate.plan.untouched][:_AS_IT_CAME]
    return (*own, *(trial for trial in order if not trial.candidate.plan.untouched))


def as_they_came(order: Sequence[TrialRecord]) -> int:
    """Number of trials of the untouched model."""
    return sum(trial.candidate.plan.untouched for trial in order)


def refine_one(
    run: Run,
    rank: int,
    trial: int,
    candidate: Candidate,
    trainer: FinalistTrainer,
    events: Events,
    budget: Budget,
    training_s: float = math.inf,
) -> FinalistRecord:
    """Run a candidate (`NO_TRIAL` where there was no search) through the whole recipe and record the result.

    ``training_s``: seconds after which a training that keeps its best epoch ends. Raises Interrupted, and Diverged
    where there is no other candidate.
    """
    stop_if_asked(events)
    end_s, ended = budget.spent_s() + training_s, False

    def late() -> bool:
        nonlocal ended
        ended = budget.spent_s() > end_s
        return ended

    try:
        refined = trainer.refine(candidate, late)
    except Diverged as error:
        if trial == NO_TRIAL:  # the only candidate: nothing else can be tried
            raise
        refined = Refined(None, None, None, None, detail=error.message)  # with the same seed it would diverge again
    if ended:
        events.line("refined    the time was up: the best epoch so far is kept")
    finalist = FinalistRecord(
        rank=rank,
        trial=trial,
        candidate=candidate,
        student=refined.student,
        artefact=refined.artefact,
        curve=refined.curve,
        accuracy=refined.accuracy,
        float_twin=refined.float_twin,
        float_operators=refined.float_operators,
        reason=refined.detail,
        ended_early=ended,
        ended_s=budget.spent_s(),
    )
    run.write(finalist)
    return finalist


def rank_correlation(trials: Sequence[TrialRecord], finalists: Sequence[FinalistRecord]) -> RankCorrelation:
    """Kendall's tau-b between the finalists' estimated and final accuracies (Kendall 1945)."""
    by_number = {trial.number: trial for trial in trials}
    pairs = [
        (estimate, finalist.accuracy.value)
        for finalist in finalists
        if not finalist.candidate.plan.untouched
        and finalist.accuracy
        and (estimate := _estimated(by_number.get(finalist.trial))) is not None
    ]
    method = next((t.accuracy.method for t in trials if t.accuracy), "none")
    if len(pairs) < _FEWEST_FOR_TAU:
        detail = f"{len(pairs)} finalists are too few to tell whether the estimate ranks"
        return RankCorrelation(method=method, finalists=len(pairs), tau=None, detail=detail)
    tau = _tau_b(pairs)
    if tau is None:
        detail = "all finalists tie: the estimate could not rank them"
    else:
        detail = "the estimate ranks" if tau > 0 else "the estimate does not rank: choose another, or train it longer"
    return RankCorrelation(method=method, finalists=len(pairs), tau=tau, detail=detail)


def _estimated(trial: TrialRecord | None) -> float | None:
    return trial.accuracy.value if trial is not None and trial.accuracy is not None else None


def _tau_b(pairs: Sequence[tuple[float, float]]) -> float | None:
    # a dozen pairs at most: counted directly, with the same result on every machine
    concordance, left, right = 0, 0, 0
    for i, (a, x) in enumerate(pairs):
        for b, y in pairs[:i]:
            s, t = (a > b) - (a < b), (x > y) - (x < y)
            concordance, left, right = concordance + s * t, left + s * s, right + t * t
    return concordance / (left * right) ** 0.5 if left and right else None


def _dominates(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] >= b[2] and a != b


def _merits(trial: TrialRecord) -> tuple[float, float, float]:
    accuracy = trial.accuracy.value if trial.accuracy else 0.0
    return accuracy, -(p5_us(trial.figures) or float("inf")), -float(trial.size_bytes or 0)


def _by_accuracy(trial: TrialRecord) -> tuple[float, float, float, int]:
    accuracy, latency, size = _merits(trial)
    return -accuracy, -latency, -size, trial.number
