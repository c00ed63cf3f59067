"""Whole model of one's own: where its measured latency clearly misses, and which share of it the limits allow there.

Reads original.json, deployments.json and the trials of the untouched model. A deployment on which the whole model
clearly misses is not tried with it again: its file, and so its latency, does not depend on its weights. Where it was
measured as a reference arch and is within the limits, that measurement is the trial's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgekd.ir.space import Arch
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.sentinel import is_unstable
from edgekd.search.space.feasible import CLEARLY, p5_budget_us, p5_us, violations
from edgekd.search.space.filters import Allowed
from edgekd.store.records import Deployment, DeploymentObservation, DeploymentsRecord, PlanRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target

__all__ = ["affordable_shares", "first_reference_arch", "known_of_whole", "whole_us", "without_whole"]


def affordable_shares(
    run: Run, plan: PlanRecord, deployments: DeploymentsRecord, trials: Sequence[TrialRecord], batch: int
) -> dict[Deployment, float]:
    """Share of the whole model's latency that the limits allow, on each deployment where it takes over 25 % more.

    Known before ``batch``: the fastest of several measurements counts, for load only makes them slower.
    """
    budget = p5_budget_us(run.target, deployments) if plan.skips_missed else None
    if budget is None:
        return {}
    original = run.original()
    observations = (*(original.observations if original is not None else ()), *deployments.observations)
    seen = [(each.deployment, each.p5_us.value) for each in observations if each.arch == plan.original and each.p5_us]
    seen += [
        (Deployment.of(trial.candidate), low)
        for trial in trials
        if trial.candidate.plan.untouched and trial.batch < batch and (low := p5_us(trial.figures)) is not None
    ]
    fastest: dict[Deployment, float] = {}
    for deployment, low in seen:
        if deployment in deployments.kept:
            fastest[deployment] = min(low, fastest.get(deployment, low))
    return {deployment: budget[0] / low for deployment, low in fastest.items() if low > CLEARLY * budget[0]}


def first_reference_arch(run: Run, plan: PlanRecord) -> Arch | None:
    """Return the whole model if it ran in float32 on every backend: it is measured before other archs.

    None for a plan made before this rule.
    """
    original = run.original() if plan.whole_first else None
    ran = original is not None and all(each.p5_us is not None for each in original.observations)
    return plan.original if ran else None


def known_of_whole(
    target: Target, plan: PlanRecord, deployments: DeploymentsRecord
) -> tuple[DeploymentObservation, ...]:
    """Return the whole model's observations as a reference arch that are stable, and within every measured limit.

    One that misses a limit may have been disturbed, and is measured again.
    """
    return tuple(
        each
        for each in (deployments.observations if plan.whole_first else ())
        if each.arch == plan.original and each.measurement is not None and each.p5_us is not None
        if not is_unstable(each.measurement)
        if max(
            violations(target, figures_for_limits(target, each.measurement, None), deployments.tails).values(),
            default=0,
        )
        <= 0
    )


def whole_us(plan: PlanRecord, deployments: DeploymentsRecord) -> dict[Deployment, float]:
    """Return the whole model's 5th percentile in us where it was a reference arch; none for a plan before this rule."""
    seen = deployments.observations if plan.whole_undecided else ()
    return {each.deployment: each.p5_us.value for each in seen if each.arch == plan.original and each.p5_us is not None}


def without_whole(
    allowed: Allowed, plan: PlanRecord, missed: Collection[Deployment], trials: Sequence[TrialRecord]
) -> Allowed:
    """Remove the whole model, the space's last index, from the deployments that it missed on.

    Not where nothing would be left to begin with: a trial then says by how much it misses.
    """
    whole = plan.space.size - 1
    left = {
        deployment: tuple(index for index in indices if index != whole or deployment not in missed)
        for deployment, indices in allowed.items()
    }
    return left if trials or any(left.values()) else allowed
