"""Latency table of untrained archs, measured to fit the latency model on the deployment the choice is trained for.

Reads features.json, the filters and deployments.json; writes latencies/*.json. Half of the archs fill the widest gaps
between those before (as reference archs do), half are drawn at random, for most of a space is not near its ends.
Measurements of the reference archs on the same deployment count too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.events import Events, stop_if_asked
from edgekd.evidence import Figure, find_figure
from edgekd.ir.space import Arch
from edgekd.measure.figures import figures_of
from edgekd.search.budget import Budget
from edgekd.search.deployments.reference_archs import choose_reference_archs
from edgekd.search.trials.measuring import Bench, observation_of
from edgekd.store.differentiable import LatenciesRecord
from edgekd.store.records import (
    Deployment,
    DeploymentObservation,
    DeploymentsRecord,
    FeaturesRecord,
    PlanRecord,
    ReferenceArchRecord,
)
from edgekd.store.run import Run

__all__ = [
    "ENERGY_PER_CALL",
    "TableFiller",
    "fastest_deployment",
    "table_archs",
    "table_energies",
    "table_observations",
]

_BATCH = 8
ENERGY_PER_CALL = "energy.per_inference"


def fastest_deployment(deployments: DeploymentsRecord) -> Deployment:
    """Return the kept deployment of lowest geometric mean latency on the reference archs that all kept ones ran."""
    lows = {
        deployment: {
            r.arch: r.p5_us.value
            for r in deployments.observations
            if r.deployment == deployment and r.p5_us is not None
        }
        for deployment in deployments.kept
    }
    common = set.intersection(*(set(found) for found in lows.values()))
    if not common:
        return deployments.kept[0]
    ordered = [arch for arch in deployments.reference_archs if arch in common]
    return min(deployments.kept, key=lambda deployment: sum(math.log(lows[deployment][arch]) for arch in ordered))


def table_archs(plan: PlanRecord, features: FeaturesRecord, left: Sequence[int], seed: int) -> tuple[Arch, ...]:
    """Distinct archs to measure, in order; fewer than asked for where fewer are left."""
    count = min(plan.differentiable.table if plan.differentiable else 0, len(left))
    spread = choose_reference_archs(plan.but(reference_archs=max(1, count // 2)), features, left)[: count // 2 or 1]
    others = [arch for arch in map(plan.space.at, left) if arch not in set(spread)]
    return (*spread, *random.Random(seed).sample(others, min(len(others), count - len(spread))))


def table_observations(
    deployment: Deployment, reference_archs: Sequence[ReferenceArchRecord], batches: Sequence[LatenciesRecord]
) -> tuple[tuple[Arch, float], ...]:
    """Each measured arch once, with its 5th percentile in microseconds; the table's own observations go first."""
    found: dict[Arch, float] = {}
    for observation in _observations(deployment, reference_archs, batches):
        if observation.p5_us is not None:
            found.setdefault(observation.arch, observation.p5_us.value)
    return tuple(found.items())


def table_energies(
    deployment: Deployment, reference_archs: Sequence[ReferenceArchRecord], batches: Sequence[LatenciesRecord]
) -> tuple[tuple[Arch, Figure], ...]:
    """Each arch once with its metered (or modelled, with given watts) energy of a call; none where no budget asks for
    it.
    """
    found: dict[Arch, Figure] = {}
    for observation in _observations(deployment, reference_archs, batches):
        figures = figures_of(observation.measurement) if observation.measurement is not None else ()
        energy = find_figure(figures, ENERGY_PER_CALL)
        if energy is not None and energy.value > 0:  # a call too cheap for its meter may come out negative
            found.setdefault(observation.arch, energy)
    return tuple(found.items())


def _observations(
    deployment: Deployment, reference_archs: Sequence[ReferenceArchRecord], batches: Sequence[LatenciesRecord]
) -> list[DeploymentObservation]:
    table = [observation for batch in batches for observation in batch.observations]
    return table + [
        observation
        for reference_arch in reference_archs
        for observation in reference_arch.observations
        if observation.deployment == deployment
    ]


@dataclass(frozen=True)
class TableFiller:
    """Measures archs that have no record yet."""

    run: Run
    plan: PlanRecord
    bench: Bench
    events: Events
    budget: Budget

    def __call__(self, deployment: Deployment, archs: Sequence[Arch]) -> None:
        """Measure batch after batch, each written when it is done. Raises Interrupted."""
        batches = [archs[start : start + _BATCH] for start in range(0, len(archs), _BATCH)]
        for number in range(len(self.run.latencies()), len(batches)):
            stop_if_asked(self.events)
            observations = self._measure(deployment, batches[number], number * _BATCH, len(archs))
            self.run.write(LatenciesRecord(number=number, observations=observations, ended_s=self.budget.spent_s()))

    def _measure(
        self, deployment: Deployment, archs: Sequence[Arch], before: int, total: int
    ) -> tuple[DeploymentObservation, ...]:
        measured, _ = self.bench.measure(
            [deployment.candidate(self.run.header.family, arch) for arch in archs],
            self.plan.measure,
            progress=lambda what, done, of: self.events.progress("latencies", before, total, f"{what} {done}/{of}"),
            stop=lambda: stop_if_asked(self.events),
        )
        return tuple(observation_of(deployment, result) for result in measured)
