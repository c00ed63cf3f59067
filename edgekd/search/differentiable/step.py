"""Steps of a differentiable search, in the place of sampling: measure a table, fit it, train the choice, rank archs.

Reads features.json, filters, deployments.json; writes latencies/*.json, latency_model.json and supernet.json. The
loop then makes and measures the ranked archs one after the other, and feasible ones continue as in any search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgekd.errors import EdgeKDError
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import Figure
from edgekd.ir.features import StaticFeatures
from edgekd.ir.space import Arch
from edgekd.search._protocol import CandidateRanking, EstimateContext, StaticAnalyser
from edgekd.search.budget import Budget
from edgekd.search.differentiable.costs import decided_model, latency_cost, recorded_block_costs
from edgekd.search.differentiable.nearby import nearest_archs
from edgekd.search.differentiable.table import (
    TableFiller,
    fastest_deployment,
    table_archs,
    table_energies,
    table_observations,
)
from edgekd.search.differentiable.training import supernet_family, train_choice
from edgekd.search.space.filters import Allowed, apply_filters
from edgekd.search.trials.measuring import Bench
from edgekd.store.differentiable import LatencyModelRecord, SupernetRecord
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.store.records import DeploymentsRecord, FeaturesRecord, PlanRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.units import format_us

__all__ = ["DifferentiableSteps", "ranking_of"]

Bandwidth = Callable[[int], Figure]
"""Bytes a second in a working set of so many bytes."""


def ranking_of(
    target: Target, plan: PlanRecord, model: LatencyModelRecord, supernet: SupernetRecord
) -> tuple[CandidateRanking, Allowed]:
    """Ranking for the sampler, and the archs that no filter removes."""
    ranking = CandidateRanking(model.deployment, supernet.order, supernet.predicted_us, model.budget_us, supernet.even)
    allowed = apply_filters(target, plan, supernet.nearby).allowed
    return ranking, {model.deployment: allowed.get(model.deployment.precision, ())}


@dataclass(frozen=True)
class DifferentiableSteps:
    """Runs each step, or reads it back where it was finished before."""

    run: Run
    plan: PlanRecord
    options: DifferentiableOptions
    analyser: StaticAnalyser
    bench: Bench
    context: EstimateContext
    bandwidth: Bandwidth | None  # None where nothing measures it
    events: Events
    budget: Budget

    def __call__(
        self, features: FeaturesRecord, left: Sequence[int], deployments: DeploymentsRecord
    ) -> tuple[CandidateRanking, Allowed, Mapping[Arch, StaticFeatures]]:
        """Return the ranking, the allowed archs and their features.

        Raises Interrupted, Diverged, ConfigurationError, MissingError.
        """
        model = self.run.latency_model() or self._model(features, left, deployments)
        for term in model.terms:
            self.events.line(f"term       {term.name}: {term.detail}")
        supernet = self.run.supernet() or self._supernet(model)
        last = supernet.points[-1]
        share = last.shares["latency"]
        self.events.line(
            f"supernet   {supernet.mode}, expected latency {format_us(share * model.budget_us)} "
            f"({share:.0%} of {format_us(model.budget_us)}), {last.open_bits:.1f} bits open"
        )
        ranking, allowed = ranking_of(self.run.target, self.plan, model, supernet)
        found = map(self.plan.space.at, supernet.nearby.indices)
        return ranking, allowed, dict(zip(found, supernet.nearby.features, strict=True))

    def _model(
        self, features: FeaturesRecord, left: Sequence[int], deployments: DeploymentsRecord
    ) -> LatencyModelRecord:
        deployment = fastest_deployment(deployments)
        block_costs = recorded_block_costs(supernet_family(self.context.family).block_costs(self.context.task.spec))
        archs = table_archs(self.plan, features, left, self.run.header.seed)
        TableFiller(self.run, self.plan, self.bench, self.events, self.budget)(deployment, archs)
        bandwidth, reason = self._bandwidth(features)
        measured = table_observations(deployment, self.run.reference_archs(), self.run.latencies())
        target = self.run.target
        energies = table_energies(deployment, self.run.reference_archs(), self.run.latencies())
        record = decided_model(
            target, self.plan, deployments, deployment, block_costs, measured, energies, bandwidth, reason
        )
        record = record.but(ended_s=self.budget.spent_s())
        self.run.write(record)
        return record

    def _bandwidth(self, features: FeaturesRecord) -> tuple[Figure | None, str]:
        if self.bandwidth is None:
            return None, f"nothing measures the bandwidth of memory on {self.run.target.device}"
        stop_if_asked(self.events)
        largest = features.features[-1]
        try:
            return self.bandwidth(largest.weight_bytes + largest.peak_activation_bytes), ""
        except EdgeKDError as error:
            return None, error.message

    def _supernet(self, model: LatencyModelRecord) -> SupernetRecord:
        axes = self.plan.axes
        outcome = train_choice(self.context, self.options, axes, model)
        found, even = nearest_archs(axes, outcome.logits, latency_cost(model, axes), model.budget_us)
        indices = sorted(index for index, _ in found)
        record = SupernetRecord(
            logits=outcome.logits,
            points=outcome.points,
            mode=outcome.mode,
            weights=outcome.weights,
            nearby=FeaturesRecord(
                space_size=self.plan.space.size,
                indices=tuple(indices),
                features=tuple(self.analyser.features(self.plan.space.at(index)) for index in indices),
            ),
            order=tuple(index for index, _ in found),
            predicted_us=tuple(predicted for _, predicted in found),
            even=even,
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        return record
