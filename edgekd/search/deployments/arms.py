"""Which arms (backend and precision) are worth searching: measured on the anchors, dominated ones dropped.

Reads anchors/*.json, plan.json and the target; its result is arms.json. An arm is dropped when another one is at
least as faithful, faster beyond the noise on every anchor both ran on, and no larger where the target limits size or
memory. So a compressed arm that is slower than float32 stays only where its size is the point (never slower).

The first anchor sees both ends of each backend's ladder of precisions; the rungs between are measured where one of
the ends is still in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from edgekd.artefacts import Backend
from edgekd.devices._protocol import ProcessSample
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.measure.calm import calm_processes
from edgekd.measure.never_slower import regressions
from edgekd.search.space.masks import Allowed, Masked, narrowed
from edgekd.store.records import (
    AnchorRecord,
    Arm,
    ArmReading,
    ArmsRecord,
    DroppedArm,
    FeaturesRecord,
    NeverSlower,
    PlanRecord,
)
from edgekd.targets.target import Target

__all__ = ["better_arm", "decide_arms", "failures", "rivals", "settle_arms", "still_in"]

_EARLY_MARGIN = 0.25  # while anchors are missing, only a clear loser goes
_LEAST_MARGIN = 0.01  # below this a difference has no use, whatever the noise
_SIZE_MARGIN = 0.05  # containers of formats differ by a little


def still_in(target: Target, plan: PlanRecord, anchors: Sequence[AnchorRecord]) -> tuple[Arm, ...]:
    """Arms to measure on the next anchor, after those measured so far."""
    if not anchors:
        return tuple(arm for arm in plan.arms if _is_end(plan, arm))
    kept, _ = _sift(target, plan, anchors, last=False)
    return kept


def decide_arms(target: Target, plan: PlanRecord, archs: Sequence[Arch], anchors: Sequence[AnchorRecord]) -> ArmsRecord:
    """The end of the comparison, on the anchors there was time for. ``kept`` is empty where no arm ran at all."""
    kept, dropped = _sift(target, plan, anchors, last=True)
    readings = tuple(reading for anchor in anchors for reading in anchor.readings)
    return ArmsRecord(
        anchors=tuple(archs[: len(anchors)]),
        readings=readings,
        kept=kept,
        dropped=dropped,
        never_slower=_never_slower(plan, readings, max(_noise(anchors), _LEAST_MARGIN)),
        noise=_noise(anchors),
        tail=_tail(kept, readings, lambda process: process.p95_us),
        tail_p99=_tail(kept, readings, lambda process: process.p99_us or process.p95_us),
    )


def settle_arms(
    target: Target,
    plan: PlanRecord,
    features: FeaturesRecord,
    masked: Masked,
    archs: Sequence[Arch],
    anchors: Sequence[AnchorRecord],
) -> tuple[ArmsRecord, Allowed]:
    """The decision, with what may be proposed on each arm now that files were seen."""
    record = decide_arms(target, plan, archs, anchors)
    found = narrowed(target, plan, features, masked, record.kept, record.readings)
    return record.but(masks=(found.report,) if found.report else ()), found.allowed


def rivals(arm: Arm, kept: Sequence[Arm], anchors: Sequence[AnchorRecord]) -> tuple[Arm, ...]:
    """Kept arms at least as faithful that came near this one, or beat it, on some anchor."""
    mine = _by_arch(arm, anchors)
    found = []
    for other in kept:
        if other != arm and other.precision.fidelity >= arm.precision.fidelity:
            ratios = _ratios(_by_arch(other, anchors), mine)
            if ratios and min(ratios) < 1.0 + _EARLY_MARGIN:
                found.append(other)
    return tuple(found)


def better_arm(target: Target, arm: Arm, kept: Sequence[Arm], readings: Sequence[ArmReading], noise: float) -> Arm:
    """The fastest of the arms that dominate this one on one arch, or the arm itself."""
    by_arm = {reading.arm: {reading.arch: reading} for reading in readings}
    mine, margin = by_arm.get(arm, {}), max(noise, _LEAST_MARGIN)
    gains = {
        other: gain
        for other in kept
        if other != arm
        and other.precision.fidelity >= arm.precision.fidelity
        and (gain := _dominated_by(target, mine, by_arm.get(other, {}), margin)) is not None
    }
    return max(gains, key=lambda other: gains[other], default=arm)


def failures(arms: ArmsRecord) -> Mapping[str, tuple[Arm, ...]]:
    """Why arms could not be made or run, as the converter or the runtime says it, and which ones say so."""
    found: dict[str, list[Arm]] = {}
    for dropped in arms.dropped:
        mine = [reading for reading in arms.readings if reading.arm == dropped.arm]
        if mine and not any(_ran(reading) for reading in mine):
            detail = next((reading.detail for reading in mine if reading.detail), "it ran on no anchor")
            found.setdefault(detail, []).append(dropped.arm)
    return {detail: tuple(failed) for detail, failed in found.items()}


def _sift(
    target: Target, plan: PlanRecord, anchors: Sequence[AnchorRecord], *, last: bool
) -> tuple[tuple[Arm, ...], tuple[DroppedArm, ...]]:
    kept, dropped = list(plan.arms), list[DroppedArm]()
    if anchors:
        kept, dropped = _without_hopeless_backends(target, plan, anchors[:1])
    for count in range(1, len(anchors) + 1):
        seen = anchors[:count]
        margin = max(_noise(seen), _LEAST_MARGIN)
        if count < len(anchors) or not last:
            margin = max(margin, _EARLY_MARGIN)
        for arm in tuple(kept):
            reason = _why_not(target, arm, kept, seen, margin)
            if reason:
                kept.remove(arm)
                dropped.append(DroppedArm(arm=arm, reason=reason))
    return tuple(kept), tuple(dropped)


def _without_hopeless_backends(
    target: Target, plan: PlanRecord, first: Sequence[AnchorRecord]
) -> tuple[list[Arm], list[DroppedArm]]:
    """Backends of which no end got past the first anchor lose the rungs that were not measured."""
    ends = [arm for arm in plan.arms if _is_end(plan, arm)]
    margin = max(_noise(first), _EARLY_MARGIN if plan.anchors > 1 else _LEAST_MARGIN)
    alive = {arm.backend for arm in ends if not _why_not(target, arm, ends, first, margin)}
    hopeless = [arm for arm in plan.arms if arm.backend not in alive and arm not in ends]
    dropped = [DroppedArm(arm=arm, reason=_unmeasured(arm.backend, ends, first)) for arm in hopeless]
    return [arm for arm in plan.arms if arm not in hopeless], dropped


def _unmeasured(backend: Backend, ends: Sequence[Arm], first: Sequence[AnchorRecord]) -> str:
    """Why the rungs between a backend's ends were left alone."""
    mine = [arm for arm in ends if arm.backend == backend]
    failed = [arm for arm in mine if not any(_ran(reading) for reading in _by_arch(arm, first).values())]
    if not failed:
        return "not measured: both ends of this backend's precisions are dominated"
    names = " and ".join(arm.precision.value for arm in failed)
    rest = "" if len(failed) == len(mine) else ", and the other end is dominated"
    return f"not measured: {names} ran on no anchor here{rest}"


def _is_end(plan: PlanRecord, arm: Arm) -> bool:
    ladder = sorted((a.precision for a in plan.arms if a.backend == arm.backend), key=lambda p: p.fidelity)
    return arm.precision in (ladder[0], ladder[-1])


def _why_not(target: Target, arm: Arm, others: Sequence[Arm], anchors: Sequence[AnchorRecord], margin: float) -> str:
    mine = _by_arch(arm, anchors)
    if not mine:
        return ""  # a rung between the ends, before its first anchor
    if not any(_ran(reading) for reading in mine.values()):
        details = [reading.detail for reading in mine.values() if reading.detail]
        return f"ran on none of {len(anchors)} anchors: {details[0]}" if details else "ran on no anchor"
    for other in others:
        if other != arm and other.precision.fidelity >= arm.precision.fidelity:
            slower = _dominated_by(target, mine, _by_arch(other, anchors), margin)
            if slower is not None:
                return f"{slower:.2f}x the latency of {other} and at no lower precision"
    return ""


def _dominated_by(
    target: Target, mine: Mapping[Arch, ArmReading], theirs: Mapping[Arch, ArmReading], margin: float
) -> float | None:
    """How many times slower, where every anchor says so beyond the margin and nothing limited is smaller; or None."""
    ratios = _ratios(mine, theirs)
    dominated = bool(ratios) and min(ratios) > 1.0 + margin and not _is_smaller(target, mine, theirs)
    return _mean(ratios) if dominated else None


def _by_arch(arm: Arm, anchors: Sequence[AnchorRecord]) -> Mapping[Arch, ArmReading]:
    return {reading.arch: reading for anchor in anchors for reading in anchor.readings if reading.arm == arm}


def _ran(reading: ArmReading) -> bool:
    return reading.low_us is not None


def _ratios(mine: Mapping[Arch, ArmReading], theirs: Mapping[Arch, ArmReading]) -> list[float]:
    """My latency over theirs, on every anchor where both ran."""
    found = []
    for arch, reading in mine.items():
        other = theirs.get(arch)
        if reading.low_us is not None and other is not None and other.low_us is not None and other.low_us.value > 0:
            found.append(reading.low_us.value / other.low_us.value)
    return found


def _is_smaller(target: Target, mine: Mapping[Arch, ArmReading], theirs: Mapping[Arch, ArmReading]) -> bool:
    """Whether the target limits something of which this arm needs less."""
    metrics = {limit.metric.partition(".")[0] for limit in target.limits if limit.hard}
    both = [(mine[arch], theirs[arch]) for arch in mine if arch in theirs]
    sizes = [(a.size_bytes, b.size_bytes) for a, b in both if a.size_bytes and b.size_bytes]
    memories = [(x, y) for a, b in both if (x := _memory(a)) and (y := _memory(b))]
    return ("size" in metrics and any(x < y * (1 - _SIZE_MARGIN) for x, y in sizes)) or (
        "memory" in metrics and any(x < y * (1 - _SIZE_MARGIN) for x, y in memories)
    )


def _memory(reading: ArmReading) -> float | None:
    processes = reading.measurement.processes if reading.measurement else ()
    told = [p.memory_model_bytes for p in processes if p.memory_model_bytes is not None]
    return statistics.median(told) if told else None


def _never_slower(plan: PlanRecord, readings: Sequence[ArmReading], margin: float) -> tuple[NeverSlower, ...]:
    """Every compressed arm against float32 on its own backend, over the anchors where both ran."""
    found = []
    for arm in plan.arms:
        if arm.precision is Precision.FLOAT32:
            continue
        mine = {r.arch: r for r in readings if r.arm == arm}
        plain = Arm(backend=arm.backend, precision=Precision.FLOAT32)
        theirs = {r.arch: r for r in readings if r.arm == plain}
        ratios = _ratios(mine, theirs)
        if ratios:
            sizes = [
                a < b
                for arch in mine
                if arch in theirs and (a := mine[arch].size_bytes) and (b := theirs[arch].size_bytes)
            ]
            ratio = _mean(ratios)
            found.append(
                NeverSlower(
                    arm=arm,
                    ratio=ratio,
                    faster=ratio < 1.0 - margin,
                    smaller=all(sizes) and bool(sizes),
                    regressed=_regressed(mine, theirs) if ratio > 1.0 else (),
                )
            )
    return tuple(found)


def _regressed(mine: Mapping[Arch, ArmReading], theirs: Mapping[Arch, ArmReading]) -> tuple[str, ...]:
    """The operators that cost more, on the first anchor where both were profiled."""
    for arch, reading in mine.items():
        other = theirs.get(arch)
        if reading.measurement is not None and other is not None and other.measurement is not None:
            found = regressions(other.measurement.operators, reading.measurement.operators)
            if found:
                return tuple(map(str, found))
    return ()


def _noise(anchors: Sequence[AnchorRecord]) -> float:
    return max((anchor.noise for anchor in anchors), default=0.0)


def _tail(kept: Sequence[Arm], readings: Sequence[ArmReading], of: Callable[[ProcessSample], float]) -> float:
    """The median over readings of a high quantile over the low one, each the median of its processes.

    The low one is of calm processes, as the ranking quantile is. A simulated estimate has no tail.
    """
    tails = []
    for reading in readings:
        if reading.arm in kept and reading.measurement is not None and reading.measurement.processes:
            low = statistics.median(p.low_us for p in calm_processes(reading.measurement))
            tails.append(statistics.median(map(of, reading.measurement.processes)) / low)
    return max(1.0, statistics.median(tails)) if tails else 1.0


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
