"""Cost terms of the loss on the target's device: the latency model, energy, and counted bytes.

Reads latencies/*.json, reference-archs/*.json, deployments.json and the target; its result is latency_model.json, with
a model of energy where the target bounds a call's energy. A term for which there is no budget, or nothing that measures
it, is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.errors import ConfigurationError, MissingError
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.space import Arch, Axis
from edgekd.measure.prediction.additive import LatencyModel, fit_latency
from edgekd.search.differentiable.table import ENERGY_PER_CALL
from edgekd.search.space.feasible import p5_budget_us
from edgekd.store.differentiable import BlockCostRecord, CostTerm, EnergyModelRecord, LatencyModelRecord
from edgekd.store.records import Deployment, DeploymentsRecord, PlanRecord
from edgekd.students.supernet.block_costs import BlockCost, Cost
from edgekd.targets.target import Limit, Target
from edgekd.units import format_us

__all__ = ["block_costs_of", "decided_model", "latency_cost", "recorded_block_costs", "share_of"]


_FEWEST = 4  # archs, for a model


def decided_model(
    target: Target,
    plan: PlanRecord,
    deployments: DeploymentsRecord,
    deployment: Deployment,
    block_costs: Sequence[BlockCostRecord],
    measured: Sequence[tuple[Arch, float]],
    energies: Sequence[tuple[Arch, Figure]],
    bandwidth: Figure | None,
    no_bandwidth: str,
) -> LatencyModelRecord:
    """Fit the latency model and fix every cost term.

    Raises ConfigurationError without a limit of time, MissingError without figures.
    """
    budget = p5_budget_us(target, deployments)
    if budget is None:
        raise ConfigurationError.one(
            f"target {target.name} bounds no latency, so there is nothing to train the choice of an arch for",
            "give the target a budget such as latency: {p95: 5 ms}, or search by sampling",
        )
    if len(measured) < _FEWEST:
        raise MissingError(
            f"only {len(measured)} archs could be measured on {deployment}: too few for a model of latency",
            "see why in the run's latencies/, or search by sampling",
        )
    archs, times = zip(*measured, strict=True)
    model = fit_latency(block_costs_of(block_costs, plan.axes), plan.axes, archs, times, budget[0])
    energy, energy_term = _energy(target, plan, block_costs, energies)
    words = f"{model.form}; held out, it errs by {model.error_median:.1%} near that, {model.error_worst:.1%} at most"
    terms = [
        CostTerm(
            name="latency",
            bound=budget[0],
            unit="us",
            kind=EvidenceKind.PREDICTED,
            detail=f"{budget[1]}; {words}",
        ),
        _bytes_term(budget[0], bandwidth, no_bandwidth),
        _size_term(target, deployment),
        energy_term,
    ]
    return LatencyModelRecord(
        deployment=deployment,
        form=model.form,
        constant_us=model.constant_us,
        coefficients=model.coefficients,
        samples=model.samples,
        error_median=model.error_median,
        error_worst=model.error_worst,
        bandwidth=bandwidth,
        block_costs=tuple(block_costs),
        terms=tuple(term for term in terms if term is not None),
        energy=energy,
    )


def latency_cost(record: LatencyModelRecord, axes: Sequence[Axis]) -> Cost:
    """Fitted latency of an arch, microseconds."""
    model = LatencyModel(
        form=record.form,
        constant_us=record.constant_us,
        coefficients=record.coefficients,
        samples=record.samples,
        error_median=record.error_median,
        error_worst=record.error_worst,
    )
    return model.cost(block_costs_of(record.block_costs, axes))


def share_of(record: LatencyModelRecord, term: CostTerm, axes: Sequence[Axis]) -> Cost | None:
    """Cost of a term as a share of its bound; None where the term was refused."""
    if term.bound is None:
        return None
    block_costs, precision = block_costs_of(record.block_costs, axes), record.deployment.precision
    if term.name == "latency":
        cost = latency_cost(record, axes)
    elif term.name == "energy":
        cost = _energy_cost(record, axes).times(1e-6)
    elif term.name == "bytes":
        cost = Cost.counted(block_costs, "bytes", precision.activations.bits / 32)
    else:
        cost = Cost.counted(block_costs, "weights", precision.weights.bits / 8)
    return cost.times(1.0 / term.bound).merged()


def recorded_block_costs(block_costs: Sequence[BlockCost]) -> tuple[BlockCostRecord, ...]:
    """Block costs as records."""
    return tuple(
        BlockCostRecord(
            name=block.name,
            axes=block.axes,
            counts={name: tuple(map(float, values.ravel())) for name, values in block.counts.items()},
        )
        for block in block_costs
    )


def block_costs_of(records: Sequence[BlockCostRecord], axes: Sequence[Axis]) -> tuple[BlockCost, ...]:
    """Block costs from records: the inverse of `recorded_block_costs`."""
    choices = {axis.name: len(axis.choices) for axis in axes}
    return tuple(
        BlockCost(
            record.name,
            record.axes,
            {
                name: np.array(values).reshape([choices[axis] for axis in record.axes])
                for name, values in record.counts.items()
            },
        )
        for record in records
    )


def _bytes_term(budget_us: float, bandwidth: Figure | None, reason: str) -> CostTerm:
    if bandwidth is None:
        return CostTerm(name="bytes", bound=None, unit="B", kind=EvidenceKind.ANALYTIC, detail=reason)
    detail = f"bytes moved in {format_us(budget_us)} at the measured {bandwidth.value / 1e9:.1f} GB/s"
    bound = bandwidth.value * budget_us / 1e6
    return CostTerm(name="bytes", bound=bound, unit="B", kind=EvidenceKind.ANALYTIC, detail=detail)


def _size_term(target: Target, deployment: Deployment) -> CostTerm | None:
    limit = next((limit for limit in target.limits if limit.metric == "size.file" and limit.hard), None)
    if limit is None:
        return None
    detail = f"weights alone, {deployment.precision.value}: {limit}"
    return CostTerm(name="size", bound=limit.bound, unit="B", kind=EvidenceKind.ANALYTIC, detail=detail)


def _energy(
    target: Target, plan: PlanRecord, block_costs: Sequence[BlockCostRecord], energies: Sequence[tuple[Arch, Figure]]
) -> tuple[EnergyModelRecord | None, CostTerm | None]:
    """Energy model fitted to the table's archs; a refused term with the reason; neither where no budget asks for
    energy.
    """
    limits = [limit for limit in target.limits if limit.metric.startswith(("energy.", "power."))]
    limit = next((limit for limit in limits if limit.metric == ENERGY_PER_CALL and limit.hard), None)
    if limit is None:
        return None, _refused(limits[0], "only a call's energy can be one, as a budget that binds") if limits else None
    if len(energies) < _FEWEST:
        reason = f"energy of {len(energies)} archs was measured on {target.device}, {_FEWEST} are needed"
        return None, _refused(limit, reason)
    archs, figures = zip(*energies, strict=True)
    drawn = [1e6 * figure.value for figure in figures]
    found = fit_latency(block_costs_of(block_costs, plan.axes), plan.axes, archs, drawn, 1e6 * limit.bound)
    model = EnergyModelRecord(
        kind=figures[0].kind,
        form=found.form,
        constant_uj=found.constant_us,
        coefficients=found.coefficients,
        samples=found.samples,
        error_median=found.error_median,
        error_worst=found.error_worst,
    )
    words = f"{found.form}, {model.kind.value}; held out, it errs by {found.error_median:.1%} near that"
    detail = f"{limit}; {words}, {found.error_worst:.1%} at most"
    return model, CostTerm(
        name="energy", bound=limit.bound, unit=limit.unit, kind=EvidenceKind.PREDICTED, detail=detail
    )


def _refused(limit: Limit, reason: str) -> CostTerm:
    detail = f"{limit} is no term of the loss: {reason}"
    return CostTerm(name="energy", bound=None, unit=limit.unit, kind=EvidenceKind.PREDICTED, detail=detail)


def _energy_cost(record: LatencyModelRecord, axes: Sequence[Axis]) -> Cost:
    """Fitted energy of a call of an arch, microjoules."""
    assert record.energy is not None  # a bound is written with its model alone
    model = LatencyModel(
        form=record.energy.form,
        constant_us=record.energy.constant_uj,
        coefficients=record.energy.coefficients,
        samples=record.energy.samples,
        error_median=record.energy.error_median,
        error_worst=record.energy.error_worst,
    )
    return model.cost(block_costs_of(record.block_costs, axes))
