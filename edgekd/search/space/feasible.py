"""Constraint violations: distance of a measured candidate from each limit that a trial can check.

Reads the figures of a trial and the device's tail factors; writes nothing. In the search, p95 and p99 are taken as the
5th percentile times the device's tail factor of each, for the tail of a short measurement is mostly the machine's; only
the choice binds the true tail.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from edgekd.devices._protocol import ProcessSample
from edgekd.evidence import Figure, find_figure
from edgekd.measure.contention import uncontended_processes
from edgekd.store.records import DeploymentsRecord, TrialRecord
from edgekd.targets.target import Target

__all__ = [
    "CLEARLY",
    "P5",
    "accuracy_floor",
    "holds_untrained",
    "is_close",
    "is_feasible",
    "may_hold",
    "misses",
    "p5_budget_us",
    "p5_us",
    "trial_violations",
    "violations",
]

P5 = "latency.p5"
"""Ranking metric: the 5th percentile of one call."""
CLEARLY = 1.25
"""Multiple of a bound beyond which a short measurement is a clear miss: on a busy machine it may be that far off."""
_EXACT = ("size.", "operators.", "delegation")


def violations(target: Target, figures: Sequence[Figure], tails: Mapping[str, float]) -> dict[str, float]:
    """Excess over each hard limit as a share of its bound; zero or less where it is met.

    Accuracy is left out (a short training says little about a floor), and so are limits without a figure.
    """
    found: dict[str, float] = {}
    for limit in target.limits:
        if not limit.hard or limit.metric == "accuracy":
            continue
        value = _value(limit.metric, figures, tails)
        if value is not None:  # a bound of 0 has no share: each unit counts as a whole
            found[limit.metric] = (1.0 if limit.upper else -1.0) * (value - limit.bound) / (limit.bound or 1.0)
    return found


def trial_violations(target: Target, trial: TrialRecord, tails: Mapping[str, float]) -> Mapping[str, float]:
    """Violations of a recorded trial."""
    return violations(target, trial.figures, tails)


def misses(violations: Mapping[str, float], tails: Mapping[str, float]) -> list[str]:
    """Missed limits as text, by how much; a tilde marks those derived from the 5th percentile."""
    signs = {name: "~+" if name in tails else "+" for name in violations}
    return [f"{name} {signs[name]}{100 * share:.1f} %" for name, share in violations.items() if share > 0]


def is_feasible(target: Target, trial: TrialRecord, tails: Mapping[str, float]) -> bool:
    """Tell whether a trial was measured and violates no hard limit, or may not, where that is left undecided."""
    missed = any(share > 0 for share in trial_violations(target, trial, tails).values())
    return trial.outcome == "measured" and (not missed or trial.undecided)


def accuracy_floor(target: Target) -> float:
    """Highest hard floor of accuracy; 0 without any."""
    return max((limit.bound for limit in target.limits if limit.hard and limit.metric == "accuracy"), default=0.0)


def holds_untrained(target: Target, trial: TrialRecord, tails: Mapping[str, float]) -> bool:
    """Tell whether a trial is the untouched model, feasible, and at or above the accuracy floor on validation."""
    if not trial.candidate.plan.untouched or trial.accuracy is None:
        return False
    return trial.accuracy.value >= accuracy_floor(target) and is_feasible(target, trial, tails)


def may_hold(target: Target, figures: Sequence[Figure], tails: Mapping[str, float]) -> bool:
    """Tell whether no hard limit is clearly missed and each is met at the better end of its figure's interval."""
    if any(share > CLEARLY - 1.0 for share in violations(target, figures, tails).values()):
        return False  # however wide the interval is
    upper = {limit.metric: limit.upper for limit in target.limits}
    best = [figure.but(value=figure.lower if upper.get(figure.metric, True) else figure.upper) for figure in figures]
    return all(share <= 0 for share in violations(target, best, tails).values())


def is_close(target: Target, trial: TrialRecord, tails: Mapping[str, float]) -> bool:
    """Tell whether a limit of a trial is met or missed by so little that noise may leave it undecided.

    Figures of the file alone have no noise.
    """
    shares = trial_violations(target, trial, tails)
    return any(1.0 / CLEARLY < 1.0 + share < CLEARLY for name, share in shares.items() if not name.startswith(_EXACT))


def p5_us(figures: Sequence[Figure]) -> float | None:
    """Ranking latency: the 5th percentile, in microseconds; None without a figure."""
    figure = find_figure(figures, P5)
    return None if figure is None else figure.value


def p5_budget_us(target: Target, deployments: DeploymentsRecord) -> tuple[float, str] | None:
    """Latency budget for the 5th percentile that satisfies every hard limit of time, and the limit that sets it.

    A limit is divided by the device's measured factor between its figure and the 5th percentile.
    """
    found = []
    for limit in target.limits:
        factor = _factor(limit.metric, deployments)
        if limit.hard and factor is not None and (limit.upper or limit.bound):  # any time gives a throughput above 0
            bound = limit.bound if limit.unit == "us" else 1e6 / limit.bound
            found.append((bound / factor, f"{limit}, {factor:.2f} times the 5th percentile here"))
    return min(found, default=None)


def _value(metric: str, figures: Sequence[Figure], tails: Mapping[str, float]) -> float | None:
    low = p5_us(figures)
    if metric in tails and low is not None:
        return low * tails[metric]
    figure = find_figure(figures, metric)
    return None if figure is None else figure.value


def _factor(metric: str, deployments: DeploymentsRecord) -> float | None:
    """Ratio of a figure of time to the p5 latency, on the kept deployments' reference archs; None for other metrics."""
    if metric in deployments.tails:
        return max(1.0, deployments.tails[metric])
    if metric == P5:
        return 1.0
    of = _TIMES.get(metric)
    if of is None:
        return None
    ratios = [
        statistics.median(of(process) for process in observation.measurement.processes)
        / statistics.median(process.p5_us for process in uncontended_processes(observation.measurement))
        for observation in deployments.observations
        if observation.deployment in deployments.kept and observation.measurement and observation.measurement.processes
    ]
    return max(1.0, statistics.median(ratios)) if ratios else 1.0


_TIMES: Mapping[str, Callable[[ProcessSample], float]] = {
    "latency.p50": lambda process: process.p50_us,
    "latency.mean": lambda process: process.mean_us,
    "throughput": lambda process: process.mean_us,
    "latency.runtime": lambda process: process.runtime_us or process.p5_us,
}
