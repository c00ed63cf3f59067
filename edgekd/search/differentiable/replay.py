"""Replay of a differentiable search from a run's records: the table's archs, the fit, the nearest archs.

The training of the choice is a fact, as measurements are; the decisions that follow from it are made again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edgekd.search._protocol import CandidateRanking
from edgekd.search.differentiable.costs import decided_model, latency_cost
from edgekd.search.differentiable.nearby import nearest_archs
from edgekd.search.differentiable.step import ranking_of
from edgekd.search.differentiable.table import fastest_deployment, table_archs, table_energies, table_observations
from edgekd.search.differentiable.teacher_tuning import TeachingSetting, decided
from edgekd.search.space.filters import Allowed
from edgekd.store.differentiable import LatencyModelRecord
from edgekd.store.records import DeploymentsRecord, FeaturesRecord, PlanRecord
from edgekd.store.run import Run

__all__ = ["differentiable_decisions", "recorded_ranking"]

Decisions = list[tuple[str, bool]]
_ALIKE = 1e-6  # relative: a sum of floats may differ on another machine


def recorded_ranking(run: Run, plan: PlanRecord, allowed: Allowed) -> tuple[CandidateRanking | None, Allowed]:
    """Ranking given to the sampler; None where archs were sampled."""
    model, supernet = run.latency_model(), run.supernet()
    if plan.differentiable is None or model is None or supernet is None:
        return None, allowed
    return ranking_of(run.target, plan, model, supernet)


def differentiable_decisions(
    run: Run, plan: PlanRecord, features: FeaturesRecord, left: Sequence[int], deployments: DeploymentsRecord
) -> Iterator[tuple[str, Decisions]]:
    """Each kind of decision with its records, and whether it was reproduced."""
    if plan.differentiable is None:
        return
    deployment, archs = fastest_deployment(deployments), table_archs(plan, features, left, run.header.seed)
    table, before = Decisions(), 0
    for batch in run.latencies():
        wanted = archs[before : before + len(batch.observations)]
        same = tuple(r.arch for r in batch.observations) == wanted and {r.deployment for r in batch.observations} == {
            deployment
        }
        table.append((f"latencies/{batch.number:02d}.json", same))
        before += len(batch.observations)
    yield "latencies", table
    model, supernet = run.latency_model(), run.supernet()
    if model is not None:
        measured = table_observations(deployment, run.reference_archs(), run.latencies())
        target = run.target
        metered = model.energy is not None  # earlier versions made no term of a meter's energy
        energies = table_energies(deployment, run.reference_archs(), run.latencies()) if metered else ()
        again = decided_model(
            target, plan, deployments, deployment, model.block_costs, measured, energies, model.bandwidth, ""
        )
        yield "model", [("latency_model.json", _alike(again, model))]
    if model is not None and supernet is not None:
        found, even = nearest_archs(plan.axes, supernet.logits, latency_cost(model, plan.axes), model.budget_us)
        recorded = tuple(zip(supernet.order, supernet.predicted_us, strict=True))
        yield "nearby", [("supernet.json", found == recorded and even == supernet.even)]
    tunings = [
        (tuning, decided(tuning.rounds) == TeachingSetting(tuning.temperature, tuning.assistant))
        for tuning in run.teacher_tunings()
    ]
    yield "teacher tunings", [(f"teacher-tunings/{tuning.trial:04d}.json", same) for tuning, same in tunings]


def _alike(again: LatencyModelRecord, model: LatencyModelRecord) -> bool:
    bounds = [{t.name: t.bound for t in m.terms if t.bound is not None} for m in (again, model)]
    same = (again.deployment, again.form, again.samples) == (model.deployment, model.form, model.samples)
    return (
        same
        and math.isclose(again.constant_us, model.constant_us, rel_tol=_ALIKE, abs_tol=_ALIKE)
        and _close(again.coefficients, model.coefficients)
        and _close(bounds[0], bounds[1])
        and _same_energy(again, model)
    )


def _same_energy(again: LatencyModelRecord, model: LatencyModelRecord) -> bool:
    one, other = again.energy, model.energy
    if one is None or other is None:
        return one is other
    alike = (one.form, one.samples) == (other.form, other.samples)
    constants = math.isclose(one.constant_uj, other.constant_uj, rel_tol=_ALIKE, abs_tol=_ALIKE)
    return alike and constants and _close(one.coefficients, other.coefficients)


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[name], other[name], rel_tol=_ALIKE, abs_tol=1e-12) for name in one
    )
