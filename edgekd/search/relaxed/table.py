"""Archs measured for the model of latency: untrained, on the arm that the choice is trained for.

Reads features.json, what the masks left and arms.json; writes latencies/*.json. Half of the archs fill the widest gaps
between those before (as anchors do), half are drawn at random, for most of a space is not near its ends. What the
anchors said of the same arm counts too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.events import Events, stop_if_asked
from edgekd.evidence import Figure, find_figure
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.measure.figures import figures_of
from edgekd.search.budget import Budget
from edgekd.search.deployments.anchors import choose_anchors
from edgekd.search.trials.measuring import Bench, reading_of
from edgekd.store.records import AnchorRecord, Arm, ArmReading, ArmsRecord, FeaturesRecord, PlanRecord
from edgekd.store.relaxed import LatenciesRecord
from edgekd.store.run import Run

__all__ = ["ENERGY_PER_CALL", "TableFiller", "fastest_arm", "table_archs", "table_energies", "table_readings"]

_BATCH = 8
ENERGY_PER_CALL = "energy.per_inference"


def fastest_arm(arms: ArmsRecord) -> Arm:
    """The kept arm with the lowest latency on the anchors: the mean of logarithms over those that all kept ones ran."""
    lows = {
        arm: {r.arch: r.low_us.value for r in arms.readings if r.arm == arm and r.low_us is not None}
        for arm in arms.kept
    }
    common = set.intersection(*(set(found) for found in lows.values()))
    if not common:
        return arms.kept[0]
    ordered = [arch for arch in arms.anchors if arch in common]
    return min(arms.kept, key=lambda arm: sum(math.log(lows[arm][arch]) for arch in ordered))


def table_archs(plan: PlanRecord, features: FeaturesRecord, left: Sequence[int], seed: int) -> tuple[Arch, ...]:
    """Distinct archs to measure, in order; fewer than asked for where fewer are left."""
    count = min(plan.relaxed.table if plan.relaxed else 0, len(left))
    spread = choose_anchors(plan.but(anchors=max(1, count // 2)), features, left)[: count // 2 or 1]
    others = [arch for arch in map(plan.space.at, left) if arch not in set(spread)]
    return (*spread, *random.Random(seed).sample(others, min(len(others), count - len(spread))))


def table_readings(
    arm: Arm, anchors: Sequence[AnchorRecord], batches: Sequence[LatenciesRecord]
) -> tuple[tuple[Arch, float], ...]:
    """Each measured arch once, with its low quantile in microseconds; the table's own readings go first."""
    found: dict[Arch, float] = {}
    for reading in _readings(arm, anchors, batches):
        if reading.low_us is not None:
            found.setdefault(reading.arch, reading.low_us.value)
    return tuple(found.items())


def table_energies(
    arm: Arm, anchors: Sequence[AnchorRecord], batches: Sequence[LatenciesRecord]
) -> tuple[tuple[Arch, Figure], ...]:
    """Each arch once whose energy of a call a meter told, or, modelled, a person; none where no budget asks for it."""
    found: dict[Arch, Figure] = {}
    for reading in _readings(arm, anchors, batches):
        figures = figures_of(reading.measurement) if reading.measurement is not None else ()
        energy = find_figure(figures, ENERGY_PER_CALL)
        if energy is not None and energy.value > 0:  # a call too cheap for its meter may come out below nothing
            found.setdefault(reading.arch, energy)
    return tuple(found.items())


def _readings(arm: Arm, anchors: Sequence[AnchorRecord], batches: Sequence[LatenciesRecord]) -> list[ArmReading]:
    table = [reading for batch in batches for reading in batch.readings]
    return table + [reading for anchor in anchors for reading in anchor.readings if reading.arm == arm]


@dataclass(frozen=True)
class TableFiller:
    """Measures what has no record yet."""

    run: Run
    plan: PlanRecord
    bench: Bench
    events: Events
    budget: Budget

    def __call__(self, arm: Arm, archs: Sequence[Arch]) -> None:
        """Batch after batch, each written when it is done. Raises Interrupted."""
        batches = [archs[start : start + _BATCH] for start in range(0, len(archs), _BATCH)]
        for number in range(len(self.run.latencies()), len(batches)):
            stop_if_asked(self.events)
            readings = self._measure(arm, batches[number], number * _BATCH, len(archs))
            self.run.write(LatenciesRecord(number=number, readings=readings, ended_s=self.budget.spent_s()))

    def _measure(self, arm: Arm, archs: Sequence[Arch], before: int, total: int) -> tuple[ArmReading, ...]:
        plan = CompressionPlan(precision=arm.precision)
        family = self.run.header.family
        measured, _ = self.bench.measure(
            [Candidate(family=family, arch=arch, plan=plan, backend=arm.backend) for arch in archs],
            self.plan.measure,
            progress=lambda what, done, of: self.events.progress("latencies", before, total, f"{what} {done}/{of}"),
            stop=lambda: stop_if_asked(self.events),
        )
        return tuple(reading_of(arm, result) for result in measured)
