"""Time of a run: seconds spent, seconds left, and the predicted time of the finalists.

Time is counted on the run's own clock, which stands still while the run is interrupted. Decisions that depend on it are
written down (proposals.json), for a replay has no clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.evidence import EvidenceKind, find_figure
from edgekd.search.space.feasible import P5, is_close
from edgekd.store.records import PlanRecord, TrialRecord
from edgekd.targets.target import Target
from edgekd.units import format_s

__all__ = [
    "SHORTLISTED",
    "Budget",
    "Speed",
    "finalists_within",
    "least_reserve_s",
    "reserve_s",
    "share_within",
    "shortlist_s",
    "stagewise_s",
    "too_short",
    "training_limit_s",
]

SHORTLISTED = 4
"""Trials that a shortlist measures at once."""

_FINALISTS_SHARE = 0.6  # of the whole budget, at most: a search that only refines has not searched
_PER_FINALIST_S = 2.0  # scoring, beside its images
_SLOWER = 1.05  # a long training beside the short ones: a processor that is busy for minutes may slow down
_CONVERSIONS = 2.5  # of a finalist: its student, that student's float32 twin, and calibration
_SHORTLIST_SHARE = 0.25  # of one refinement: measuring once more before it must be cheap beside it
_CERTIFICATE_S = 10.0  # parity, bundle and report
_FORWARD = 3.0  # times the images/s of training: a backward pass takes twice the time of a forward pass
_COMPARISONS = 2  # batches until a comparison is decided: where it is close, the first is not enough
_LEAST_SHARE = 0.05  # of the recipe's epochs
_ENSURED = 0.25  # of the whole time is for training the finalists, even where trials took longer than expected
# until this run has seen better:
_PROCESS_S = 1.0  # start of a process, import of a runtime, load
_CONVERT_S = 4.0
_IMAGES_PER_S = 500.0


class Budget:
    """Clock of a run: seconds worked, summed over all its resumptions."""

    def __init__(self, total_s: float | None, now: Callable[[], float], spent_s: float = 0.0) -> None:
        self.total_s, self._now = total_s, now
        self._start = now() - spent_s

    def spent_s(self) -> float:
        """Seconds worked so far."""
        return self._now() - self._start

    def left_s(self) -> float:
        """Seconds left; infinite without a budget, negative when it is overrun."""
        return float("inf") if self.total_s is None else self.total_s - self.spent_s()


@dataclass(frozen=True)
class Speed:
    """Speed of training, converting and measuring, estimated from this run's trials."""

    images_per_s: float = _IMAGES_PER_S
    convert_s: float = _CONVERT_S
    process_s: float = _PROCESS_S  # of a measured process, beyond the calls asked for
    sample_s: float = 0.0  # of a file in its runtime; 0 where a simulator estimated it, and it is scored in PyTorch
    comparisons: int = _COMPARISONS

    @classmethod
    def of(cls, plan: PlanRecord, trials: Sequence[TrialRecord], target: Target, tails: Mapping[str, float]) -> Speed:
        """Estimate from recorded trials; the slower half of the training speeds counts.

        Finalists are the more accurate candidates, hence the larger. The untouched model counts only where there is no
        other trial: it is larger than the students that are trained. Where trials were measured, and none came close
        to a limit, one batch decides the comparison of finalists. ``tails`` as in
        `edgekd.search.space.feasible.violations`.
        """
        known = [trial for trial in trials if trial.figures and not trial.candidate.plan.untouched]
        clear = bool(known) and not any(is_close(target, trial, tails) for trial in known)
        speeds = sorted(_observed(trials, lambda trial: trial.images_per_s))
        converted = _observed(trials, lambda trial: trial.seconds.get("convert"))
        measured = _observed(trials, lambda trial: trial.seconds.get("measure"))
        calls = _observed(trials, _measured_us)
        processes = [max(0.0, seconds / plan.measure.processes - _asked_s(plan.measure)) for seconds in measured]
        return cls(
            statistics.median(speeds[: (len(speeds) + 1) // 2]) if speeds else _IMAGES_PER_S,
            statistics.median(converted) if converted else _CONVERT_S,
            statistics.median(processes) if processes else _PROCESS_S,
            statistics.median(calls) / 1e6 / plan.samples_a_call if calls else 0.0,
            1 if clear else _COMPARISONS,
        )

    def training_s(self, plan: PlanRecord) -> float:
        """Seconds to train one finalist by the whole recipe. Observed speeds include validation after epochs."""
        return _SLOWER * plan.refine_images / self.images_per_s

    def refine_s(self, plan: PlanRecord) -> float:
        """Seconds to refine one finalist: training, conversions, scoring."""
        return self.training_s(plan) + self.untrained_s(plan)

    def untrained_s(self, plan: PlanRecord) -> float:
        """Seconds for one finalist that stays untouched: conversions, scoring in float32 and as a file."""
        return _CONVERSIONS * self.convert_s + self.scored_s(plan)

    def scored_s(self, plan: PlanRecord) -> float:
        """Seconds to score one student on the validation split, in PyTorch and as a file."""
        return _PER_FINALIST_S + plan.validation_images * (self._forward_s() + self.sample_s)

    def compared_s(self, plan: PlanRecord, finalists: int) -> float:
        """Seconds to measure finalists beside their float32 twins, and the winner once more."""
        return self.comparisons * (self.measure_s(plan.certify, 2 * finalists) + self.measure_s(plan.certify, 1))

    def certificate_s(self, plan: PlanRecord) -> float:
        """Seconds for the certificate: parity, bundle, and the test split by the file, its twin and one's own model."""
        passes = 1 if plan.original is None else 2
        return _CERTIFICATE_S + plan.test_images * (passes * self._forward_s() + self.sample_s)

    def _forward_s(self) -> float:
        return 1.0 / (_FORWARD * self.images_per_s)

    def measure_s(self, plan: MeasurePlan, jobs: int) -> float:
        """Seconds for a batch of measurements on a quiet machine."""
        processes_s = jobs * (self.process_s + _asked_s(plan))
        if plan.sentinel:
            processes_s += self.process_s + _asked_s(plan.but(load=Load()))  # called back to back under any load
        return plan.processes * processes_s


def reserve_s(plan: PlanRecord, speed: Speed, finalists: int, rivals: int = 0, untouched: int = 0) -> float:
    """Seconds to refine, measure and certify ``finalists``, at the speed observed so far.

    ``rivals``: number of other deployments each finalist's arch is rechecked on. ``untouched``: number of finalists
    that need no training, in addition to ``finalists``.
    """
    all_of_them = finalists + untouched
    again = all_of_them * (rivals + 1) if rivals else 0
    rechecking = again * speed.convert_s + speed.measure_s(plan.measure, again + 1) if again else 0.0
    refining = finalists * speed.refine_s(plan) + untouched * speed.untrained_s(plan)
    ending = speed.compared_s(plan, all_of_them) + speed.certificate_s(plan)
    return shortlist_s(plan, speed) + rechecking + refining + ending


def too_short(plan: PlanRecord, total_s: float | None) -> str:
    """Return a caution where a budget is less than one candidate takes that is not trained; else ``""``."""
    least_s = reserve_s(plan, Speed(), 0, untouched=1)
    if total_s is None or total_s >= least_s:
        return ""
    least, total = format_s(least_s), format_s(total_s)
    return f"{total} to spend, and one candidate takes about {least} without any training: raise search.budget"


def least_reserve_s(plan: PlanRecord, speed: Speed, finalists: int, reserved_s: float, total_s: float | None) -> float:
    """Seconds kept while nothing was found that is worth training: of ``reserved_s`` a quarter of the budget trains."""
    if total_s is None:
        return reserved_s
    training_s = finalists * speed.training_s(plan)
    return reserved_s - training_s + min(training_s, _ENSURED * total_s)


def training_limit_s(plan: PlanRecord, speed: Speed, budget: Budget, waiting: int = 1, ensured: bool = True) -> float:
    """Seconds that one finalist may train from now on, so that it is certified in time; infinite without a budget.

    ``waiting``: finalists that are still to be compared, this one included. ``ensured`` as in `share_within`.
    """
    if budget.total_s is None:
        return float("inf")
    ending_s = speed.untrained_s(plan) + speed.compared_s(plan, waiting) + speed.certificate_s(plan)
    return max(budget.left_s() - ending_s, _ENSURED * budget.total_s if ensured else 0.0)


def shortlist_s(plan: PlanRecord, speed: Speed) -> float:
    """Seconds to measure the shortlist before refining; 0 where refining is too short for a shortlist to pay."""
    seconds = SHORTLISTED * speed.convert_s + speed.measure_s(plan.certify, SHORTLISTED)
    return seconds if seconds < _SHORTLIST_SHARE * speed.refine_s(plan) else 0.0


def stagewise_s(plan: PlanRecord, speed: Speed, stages: int) -> float:
    """Seconds for the stage-by-stage comparison of the winner, and the certificate after it."""
    each_s = speed.convert_s + speed.scored_s(plan)
    return stages * each_s + speed.measure_s(plan.measure, stages) + speed.certificate_s(plan)


def finalists_within(plan: PlanRecord, speed: Speed, total_s: float | None, rivals: int = 0, untouched: int = 0) -> int:
    """Number of finalists that fit in their share of the time: at least one, at most ``plan.finalists``."""
    for count in range(plan.finalists, 1, -1):
        if total_s is None or reserve_s(plan, speed, count, rivals, untouched) <= _FINALISTS_SHARE * total_s:
            return count
    return 1


def share_within(
    plan: PlanRecord, speed: Speed, budget: Budget, finalists: int, reserved_s: float, ensured: bool
) -> float:
    """Share of the recipe's epochs for which there is time: at least 0.05, 1 where all fit.

    ``ensured``: a quarter of the budget trains in any case, and is overrun where trials left less. A student of two
    epochs meets no floor of accuracy, and the fault would be the machine's.
    """
    left_s = budget.left_s()
    training_s = finalists * speed.training_s(plan)
    if budget.total_s is None or reserved_s <= left_s or training_s <= 0:
        return 1.0
    least = min(1.0, _ENSURED * budget.total_s / training_s) if ensured else 0.0
    return max(_LEAST_SHARE, least, 1.0 - (reserved_s - left_s) / training_s)


def _observed(trials: Sequence[TrialRecord], of: Callable[[TrialRecord], float | None]) -> list[float]:
    """Values of ``of`` over the trained trials; over the untouched ones where no trained trial has any."""
    found = [(trial.candidate.plan.untouched, value) for trial in trials if (value := of(trial))]
    trained = [value for untouched, value in found if not untouched]
    return trained or [value for _, value in found]


def _measured_us(trial: TrialRecord) -> float | None:
    figure = find_figure(trial.figures, P5)
    return figure.value if figure is not None and figure.kind is EvidenceKind.MEASURED else None


def _asked_s(plan: MeasurePlan) -> float:
    """Seconds of calls in a process of the plan; under a periodic load a round lasts at least ``min_calls`` periods."""
    periods_ms = 1e3 * plan.min_calls / plan.load.rate_hz if plan.load.rate_hz else 0.0
    return (plan.warmup_ms + plan.rounds * max(plan.round_ms, periods_ms)) / 1e3
