"""Ranking of deployments (backend and precision) on the reference archs; dominated ones are dropped.

Reads reference-archs/*.json, plan.json and the target; its result is deployments.json. A deployment is dropped when
another one is at least as faithful, faster beyond the noise on every reference arch both ran on, and no larger where
the target limits size or memory. So a compressed deployment that is slower than float32 stays only where its size is
needed (never slower).

The first reference arch measures the least and the most faithful precision of each backend; the precisions between are
measured only where one of these two is still in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from edgekd.artefacts import Backend
from edgekd.devices._protocol import ProcessSample
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.measure.contention import uncontended_processes
from edgekd.measure.never_slower import regressions
from edgekd.search.space.filters import Allowed, Filtered, narrowed
from edgekd.store.records import (
    Deployment,
    DeploymentObservation,
    DeploymentsRecord,
    DroppedDeployment,
    FeaturesRecord,
    NeverSlower,
    PlanRecord,
    ReferenceArchRecord,
)
from edgekd.targets.target import Target

__all__ = ["better_deployment", "decide_deployments", "failures", "final_deployments", "rivals", "still_in"]

_EARLY_MARGIN = 0.25  # while reference archs are missing, or only the largest was measured: for a clear loser alone
_LEAST_MARGIN = 0.01  # a smaller difference has no practical use, whatever the noise
_SIZE_MARGIN = 0.05  # container overhead differs between formats


def still_in(
    target: Target, plan: PlanRecord, reference_archs: Sequence[ReferenceArchRecord]
) -> tuple[Deployment, ...]:
    """Return the deployments to measure on the next reference arch."""
    if not reference_archs:
        return tuple(deployment for deployment in plan.deployments if _is_end(plan, deployment))
    kept, _ = _sift(target, plan, reference_archs, last=False)
    return kept


def decide_deployments(
    target: Target, plan: PlanRecord, archs: Sequence[Arch], reference_archs: Sequence[ReferenceArchRecord]
) -> DeploymentsRecord:
    """Final ranking, on the reference archs there was time for. ``kept`` is empty where no deployment ran."""
    kept, dropped = _sift(target, plan, reference_archs, last=True)
    observations = tuple(
        observation for reference_arch in reference_archs for observation in reference_arch.observations
    )
    return DeploymentsRecord(
        reference_archs=tuple(archs[: len(reference_archs)]),
        observations=observations,
        kept=kept,
        dropped=dropped,
        never_slower=_never_slower(plan, observations, max(_noise(reference_archs), _LEAST_MARGIN)),
        noise=_noise(reference_archs),
        tail=_tail(kept, observations, lambda process: process.p95_us),
        tail_p99=_tail(kept, observations, lambda process: process.p99_us or process.p95_us),
    )


def final_deployments(
    target: Target,
    plan: PlanRecord,
    features: FeaturesRecord,
    filtered: Filtered,
    archs: Sequence[Arch],
    reference_archs: Sequence[ReferenceArchRecord],
) -> tuple[DeploymentsRecord, Allowed]:
    """Return the final ranking, and the archs that may be proposed on each kept deployment given file sizes seen."""
    record = decide_deployments(target, plan, archs, reference_archs)
    found = narrowed(target, plan, features, filtered, record.kept, record.observations)
    return record.but(filters=(found.report,) if found.report else ()), found.allowed


def rivals(
    deployment: Deployment, kept: Sequence[Deployment], reference_archs: Sequence[ReferenceArchRecord]
) -> tuple[Deployment, ...]:
    """Kept deployments at least as faithful that came near this one, or beat it, on some reference arch."""
    mine = _by_arch(deployment, reference_archs)
    found = []
    for other in kept:
        if other != deployment and other.precision.fidelity >= deployment.precision.fidelity:
            ratios = _ratios(_by_arch(other, reference_archs), mine)
            if ratios and min(ratios) < 1.0 + _EARLY_MARGIN:
                found.append(other)
    return tuple(found)


def better_deployment(
    target: Target,
    deployment: Deployment,
    kept: Sequence[Deployment],
    observations: Sequence[DeploymentObservation],
    noise: float,
) -> Deployment:
    """Return the fastest deployment that dominates this one on one arch, or the deployment itself."""
    by_deployment = {observation.deployment: {observation.arch: observation} for observation in observations}
    mine, margin = by_deployment.get(deployment, {}), max(noise, _LEAST_MARGIN)
    gains = {
        other: gain
        for other in kept
        if other != deployment
        and other.precision.fidelity >= deployment.precision.fidelity
        and (gain := _dominated_by(target, mine, by_deployment.get(other, {}), margin)) is not None
    }
    return max(gains, key=lambda other: gains[other], default=deployment)


def failures(deployments: DeploymentsRecord) -> Mapping[str, tuple[Deployment, ...]]:
    """Failed deployments by reason, as the converter or the runtime gives it."""
    found: dict[str, list[Deployment]] = {}
    for dropped in deployments.dropped:
        mine = [observation for observation in deployments.observations if observation.deployment == dropped.deployment]
        if mine and not any(_ran(observation) for observation in mine):
            detail = next(
                (observation.detail for observation in mine if observation.detail), "it ran on no reference arch"
            )
            found.setdefault(detail, []).append(dropped.deployment)
    return {detail: tuple(failed) for detail, failed in found.items()}


def _sift(
    target: Target, plan: PlanRecord, reference_archs: Sequence[ReferenceArchRecord], *, last: bool
) -> tuple[tuple[Deployment, ...], tuple[DroppedDeployment, ...]]:
    kept, dropped = list(plan.deployments), list[DroppedDeployment]()
    if reference_archs:
        kept, dropped = _without_hopeless_backends(target, plan, reference_archs[:1])
    for count in range(1, len(reference_archs) + 1):
        seen = reference_archs[:count]
        margin = max(_noise(seen), _LEAST_MARGIN)
        if count < len(reference_archs) or not last or (count == 1 and _is_whole(plan, seen[0].arch)):
            margin = max(margin, _EARLY_MARGIN)
        for deployment in tuple(kept):
            reason = _why_not(target, deployment, kept, seen, margin)
            if reason:
                kept.remove(deployment)
                dropped.append(DroppedDeployment(deployment=deployment, reason=reason))
    return tuple(kept), tuple(dropped)


def _without_hopeless_backends(
    target: Target, plan: PlanRecord, first: Sequence[ReferenceArchRecord]
) -> tuple[list[Deployment], list[DroppedDeployment]]:
    """Drop the unmeasured precisions of backends whose extreme precisions both failed on the first reference arch."""
    ends = [deployment for deployment in plan.deployments if _is_end(plan, deployment)]
    margin = max(_noise(first), _EARLY_MARGIN if plan.reference_archs > 1 else _LEAST_MARGIN)
    alive = {deployment.backend for deployment in ends if not _why_not(target, deployment, ends, first, margin)}
    hopeless = [
        deployment for deployment in plan.deployments if deployment.backend not in alive and deployment not in ends
    ]
    dropped = [
        DroppedDeployment(deployment=deployment, reason=_unmeasured(deployment.backend, ends, first))
        for deployment in hopeless
    ]
    return [deployment for deployment in plan.deployments if deployment not in hopeless], dropped


def _unmeasured(backend: Backend, ends: Sequence[Deployment], first: Sequence[ReferenceArchRecord]) -> str:
    """Return the reason why the precisions between a backend's extremes were not measured."""
    mine = [deployment for deployment in ends if deployment.backend == backend]
    failed = [
        deployment
        for deployment in mine
        if not any(_ran(observation) for observation in _by_arch(deployment, first).values())
    ]
    if not failed:
        return "not measured: both ends of this backend's precisions are dominated"
    names = " and ".join(deployment.precision.value for deployment in failed)
    rest = "" if len(failed) == len(mine) else ", and the other end is dominated"
    return f"not measured: {names} ran on no reference arch here{rest}"


def _is_whole(plan: PlanRecord, arch: Arch) -> bool:
    """Tell whether an arch is the user's own whole model, which alone says too little about its smaller parts."""
    return plan.whole_first and arch == plan.original and plan.space.size > 1


def _is_end(plan: PlanRecord, deployment: Deployment) -> bool:
    precisions = sorted(
        (a.precision for a in plan.deployments if a.backend == deployment.backend), key=lambda p: p.fidelity
    )
    return deployment.precision in (precisions[0], precisions[-1])


def _why_not(
    target: Target,
    deployment: Deployment,
    others: Sequence[Deployment],
    reference_archs: Sequence[ReferenceArchRecord],
    margin: float,
) -> str:
    mine = _by_arch(deployment, reference_archs)
    if not mine:
        return ""  # a precision between the extremes, before its first reference arch
    if not any(_ran(observation) for observation in mine.values()):
        details = [observation.detail for observation in mine.values() if observation.detail]
        return (
            f"ran on none of {len(reference_archs)} reference archs: {details[0]}"
            if details
            else "ran on no reference arch"
        )
    for other in others:
        if other != deployment and other.precision.fidelity >= deployment.precision.fidelity:
            slower = _dominated_by(target, mine, _by_arch(other, reference_archs), margin)
            if slower is not None:
                return f"{slower:.2f}x the latency of {other} and at no lower precision"
    return ""


def _dominated_by(
    target: Target,
    mine: Mapping[Arch, DeploymentObservation],
    theirs: Mapping[Arch, DeploymentObservation],
    margin: float,
) -> float | None:
    """Slowdown (a factor), where it exceeds the margin on every reference arch and no limited quantity is smaller."""
    ratios = _ratios(mine, theirs)
    dominated = bool(ratios) and min(ratios) > 1.0 + margin and not _is_smaller(target, mine, theirs)
    return _mean(ratios) if dominated else None


def _by_arch(
    deployment: Deployment, reference_archs: Sequence[ReferenceArchRecord]
) -> Mapping[Arch, DeploymentObservation]:
    return {
        observation.arch: observation
        for reference_arch in reference_archs
        for observation in reference_arch.observations
        if observation.deployment == deployment
    }


def _ran(observation: DeploymentObservation) -> bool:
    return observation.p5_us is not None


def _ratios(mine: Mapping[Arch, DeploymentObservation], theirs: Mapping[Arch, DeploymentObservation]) -> list[float]:
    """Latency ratios mine / theirs on every reference arch where both ran."""
    found = []
    for arch, observation in mine.items():
        other = theirs.get(arch)
        if observation.p5_us is not None and other is not None and other.p5_us is not None and other.p5_us.value > 0:
            found.append(observation.p5_us.value / other.p5_us.value)
    return found


def _is_smaller(
    target: Target, mine: Mapping[Arch, DeploymentObservation], theirs: Mapping[Arch, DeploymentObservation]
) -> bool:
    """Tell whether this deployment needs less of a quantity that the target limits (size, memory)."""
    metrics = {limit.metric.partition(".")[0] for limit in target.limits if limit.hard}
    both = [(mine[arch], theirs[arch]) for arch in mine if arch in theirs]
    sizes = [(a.size_bytes, b.size_bytes) for a, b in both if a.size_bytes and b.size_bytes]
    measured = [(a.measurement, b.measurement) for a, b in both if a.measurement and b.measurement]
    memories = [(x, y) for a, b in measured if (x := a.memory_bytes) and (y := b.memory_bytes)]
    return ("size" in metrics and any(x < y * (1 - _SIZE_MARGIN) for x, y in sizes)) or (
        "memory" in metrics and any(x < y * (1 - _SIZE_MARGIN) for x, y in memories)
    )


def _never_slower(
    plan: PlanRecord, observations: Sequence[DeploymentObservation], margin: float
) -> tuple[NeverSlower, ...]:
    """Never-slower comparison of every compressed deployment with float32 on its backend, over shared archs."""
    found = []
    for deployment in plan.deployments:
        if deployment.precision is Precision.FLOAT32:
            continue
        mine = {r.arch: r for r in observations if r.deployment == deployment}
        plain = Deployment(backend=deployment.backend, precision=Precision.FLOAT32)
        theirs = {r.arch: r for r in observations if r.deployment == plain}
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
                    deployment=deployment,
                    ratio=ratio,
                    faster=ratio < 1.0 - margin,
                    smaller=all(sizes) and bool(sizes),
                    regressed=_regressed(mine, theirs) if ratio > 1.0 else (),
                )
            )
    return tuple(found)


def _regressed(
    mine: Mapping[Arch, DeploymentObservation], theirs: Mapping[Arch, DeploymentObservation]
) -> tuple[str, ...]:
    """Operators that cost more, on the first reference arch where both were profiled."""
    for arch, observation in mine.items():
        other = theirs.get(arch)
        if observation.measurement is not None and other is not None and other.measurement is not None:
            found = regressions(other.measurement.operators, observation.measurement.operators)
            if found:
                return tuple(map(str, found))
    return ()


def _noise(reference_archs: Sequence[ReferenceArchRecord]) -> float:
    return max((reference_arch.noise for reference_arch in reference_archs), default=0.0)


def _tail(
    kept: Sequence[Deployment], observations: Sequence[DeploymentObservation], of: Callable[[ProcessSample], float]
) -> float:
    """Tail factor: median over measurements of a high quantile over the 5th percentile, each a median of processes.

    The 5th percentile is that of uncontended processes, as in the ranking. A simulated estimate has no tail.
    """
    tails = []
    for observation in observations:
        if observation.deployment in kept and observation.measurement is not None and observation.measurement.processes:
            low = statistics.median(p.p5_us for p in uncontended_processes(observation.measurement))
            tails.append(statistics.median(map(of, observation.measurement.processes)) / low)
    return max(1.0, statistics.median(tails)) if tails else 1.0


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
