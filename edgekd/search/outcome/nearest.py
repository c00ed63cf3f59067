"""Nearest candidates where none meets the target: by how much they miss, and which limits would admit them.

Reads trials, finalists, reference archs and the target; its text goes to outcome.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.ir.plan import Candidate
from edgekd.search.space.feasible import misses, p5_us, trial_violations
from edgekd.store.records import FinalistRecord, ReferenceArchRecord, ShortlistRecord, TrialRecord
from edgekd.targets.target import Limit, Target
from edgekd.targets.verdict import Answer, Verdict, judge
from edgekd.units import format_bytes, format_us

__all__ = ["floor_line", "nearest_finalists", "nearest_shortlisted", "nearest_trials", "nothing_left"]

_SHOWN = 3


def nearest_trials(target: Target, tails: Mapping[str, float], trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Trials with the smallest worst miss, and the limits that would admit the nearest."""
    missed = {trial.number: trial_violations(target, trial, tails) for trial in trials if trial.figures}
    ranked = sorted(
        (trial for trial in trials if trial.number in missed),
        key=lambda trial: (max(missed[trial.number].values(), default=0.0), trial.number),
    )
    if not ranked:
        reasons = {trial.detail or trial.outcome for trial in trials}
        return ("no candidate could be measured:", *(f" {reason}" for reason in sorted(reasons)[:_SHOWN]))
    lines = ["nearest:"]
    for trial in ranked[:_SHOWN]:
        lines.append(f" {trial.candidate}: {_violations_text(missed[trial.number], tails)}")
    nearest = missed[ranked[0].number]
    loosened = [_loosened(limit, nearest[limit.metric]) for limit in target.limits if nearest.get(limit.metric, 0) > 0]
    if loosened:
        lines.append(f"what would help: {' and '.join(loosened)}")
    return tuple(lines)


def nearest_finalists(finalists: Sequence[FinalistRecord]) -> tuple[str, ...]:
    """Limits that each finalist misses, nearest first, with the figure and its interval."""
    return _nearest([(f.candidate, f.verdict, f.reason) for f in finalists])


def nearest_shortlisted(target: Target, shortlist: ShortlistRecord, trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Limits that each shortlisted trial misses, untrained, so without accuracy."""
    by_number = {trial.number: trial.candidate for trial in trials}
    return _nearest(
        [
            (
                by_number[seen.trial],
                judge(target, seen.figures).untrained,
                seen.measurement.detail if seen.measurement else "",
            )
            for seen in shortlist.seen
        ]
    )


def _nearest(judged: Sequence[tuple[Candidate, Verdict | None, str]]) -> tuple[str, ...]:
    lines = ["nearest:"]
    for candidate, verdict, reason in sorted(judged, key=lambda one: _excess(one[1]))[:_SHOWN]:
        verdicts = verdict.limits if verdict else ()
        missed = [v for v in verdicts if v.limit.hard and v.answer is not Answer.HOLDS]
        words = ", ".join(
            f"{v.limit.metric} {v.figure} where {v.limit} is asked ({v.answer.value})"
            if v.figure
            else f"{v.limit.metric} has no figure here"
            for v in missed
        )
        lines.append(f" {candidate}: {words or reason or 'has no file'}")
    return tuple(lines)


def _excess(verdict: Verdict | None) -> float:
    """Worst miss as a share of its bound, by the interval's deciding end; infinite where a figure is missing."""
    shares = [0.0]
    for one in verdict.limits if verdict else ():
        if one.limit.hard and one.answer is not Answer.HOLDS:
            if one.figure is None:
                return float("inf")
            shares.append(one.figure.value if one.margin is None else -one.margin)  # a bound of 0 has no share
    return max(shares) if verdict else float("inf")


def floor_line(
    tails: Mapping[str, float], trials: Sequence[TrialRecord], reference_archs: Sequence[ReferenceArchRecord]
) -> str:
    """Lowest latency seen in this space on this device, as a line."""
    lows = [us for trial in trials if (us := p5_us(trial.figures)) is not None]
    lows += [
        r.p5_us.value for reference_arch in reference_archs for r in reference_arch.observations if r.p5_us is not None
    ]
    if not lows:
        return "no latency was measured"
    floor = min(lows)
    p95 = f" (p95 about {format_us(floor * tails['latency.p95'])})" if "latency.p95" in tails else ""
    return f"latency floor of this space on this device: {format_us(floor)}{p95}"


def nothing_left(target: Target, removed: Mapping[str, int]) -> tuple[str, ...]:
    """Lines for a search whose filters leave no arch."""
    lines = [f" {name} removed {count}" for name, count in removed.items() if count]
    asked = ", ".join(str(limit) for limit in target.limits if limit.metric in removed)
    return (*lines, f"what would help: a smaller space, a lower precision, or more than {asked}")


def _violations_text(violations: Mapping[str, float], tails: Mapping[str, float]) -> str:
    met = [f"{name} ok" for name, share in violations.items() if share <= 0]
    return ", ".join([*misses(violations, tails), *met]) or "no limit was checked"


def _loosened(limit: Limit, share: float) -> str:
    bound = limit.bound + (share if limit.upper else -share) * (limit.bound or 1.0)  # as `violations` counts it
    return f"{limit.metric} {'<=' if limit.upper else '>='} {_shown(limit, bound)}"


def _shown(limit: Limit, value: float) -> str:
    if limit.unit == "us":
        return format_us(value)
    return format_bytes(value) if limit.unit == "B" else f"{value:.4g} {limit.unit}".rstrip()
