"""Constraint filter: static lower bounds of every arch against the target's limits, before anything is proposed.

Reads features.json, plan.json and the target; its result is filters.json. A filter may only rest on a bound that holds
for every file and every runtime, so each is a *lower* bound and says what it leaves out. Once the deployments were
compared, files were seen: the format's overhead on the weights narrows the proposals further (`narrowed`, in
deployments.json).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgekd.evidence import EvidenceKind
from edgekd.ir.features import StaticFeatures
from edgekd.ir.numerics import Precision
from edgekd.store.records import (
    Deployment,
    DeploymentObservation,
    FeaturesRecord,
    FilterReport,
    FiltersRecord,
    PlanRecord,
)
from edgekd.targets.target import Limit, Target
from edgekd.units import format_bytes

__all__ = ["Allowed", "Filtered", "Narrowed", "apply_filters", "at_precision", "least_of", "narrowed"]

Allowed = Mapping[Deployment, tuple[int, ...]]
"""Indices of archs that may be proposed on each deployment, ascending."""

_MEMORY_SLACK_BYTES = 1024 * 1024
# a runtime may serve a small model from memory it already held, which the measurement counts as the runtime's own


@dataclass(frozen=True)
class Filtered:
    """Result of the filters: the report, and the indices of archs left at each precision, ascending."""

    record: FiltersRecord
    allowed: Mapping[Precision, tuple[int, ...]]

    @property
    def left(self) -> tuple[int, ...]:
        """Archs left at some precision, ascending."""
        return tuple(sorted(set().union(*self.allowed.values())))


def at_precision(features: StaticFeatures, precision: Precision) -> StaticFeatures:
    """Convert float32 features to another precision. Scales and biases are left out: weights are a lower bound."""
    weights = features.parameters * precision.least_weight_bits // 8
    activations = precision.activations.bits
    moved_activations = max(0, features.bytes_moved - 4 * features.parameters)
    return features.but(
        weight_bytes=weights,
        peak_activation_bytes=features.peak_activation_bytes * activations // 32,
        bytes_moved=weights + moved_activations * activations // 32,
    )


def apply_filters(target: Target, plan: PlanRecord, features: FeaturesRecord) -> Filtered:
    """Apply every filter that the target implies. An arch is removed when it fails at every precision."""
    precisions = tuple(dict.fromkeys(deployment.precision for deployment in plan.deployments))
    alive = {(index, precision) for index in features.indices for precision in precisions}
    by_index = dict(zip(features.indices, features.features, strict=True))
    reports = []
    for limit in target.limits:
        bound = _BOUNDS.get(limit.metric)
        if bound is None or not limit.hard:
            continue
        before = {index for index, _ in alive}
        alive = {
            (index, precision)
            for index, precision in alive
            if bound.lowest(at_precision(by_index[index], precision)) <= limit.bound + bound.slack_bytes
        }
        after = {index for index, _ in alive}
        reports.append(_report(limit, bound, len(before - after)))
    allowed = {p: tuple(index for index in features.indices if (index, p) in alive) for p in precisions}
    record = FiltersRecord(
        space_size=features.space_size,
        considered=len(features.indices),
        filters=tuple(reports),
        left=len({index for index, _ in alive}),
    )
    return Filtered(record, allowed)


def least_of(target: Target, plan: PlanRecord, features: FeaturesRecord) -> list[tuple[Limit, int]]:
    """Lowest bound of any arch at any precision of the deployments, in bytes, for each limit that filters."""
    precisions = dict.fromkeys(deployment.precision for deployment in plan.deployments)
    return [
        (limit, min(bound.lowest(at_precision(row, each)) for row in features.features for each in precisions))
        for limit in target.limits
        if (bound := _BOUNDS.get(limit.metric)) is not None and limit.hard
    ]


@dataclass(frozen=True)
class Narrowed:
    """Archs that may be proposed on each kept deployment, and the report of the filter."""

    allowed: Allowed
    report: FilterReport | None


def narrowed(
    target: Target,
    plan: PlanRecord,
    features: FeaturesRecord,
    filtered: Filtered,
    kept: Iterable[Deployment],
    observations: Iterable[DeploymentObservation],
) -> Narrowed:
    """Remove archs predicted too large, from the least overhead per operator that the format added to the weights.

    This is a prediction, so its error on unseen files is reported: each reference arch's file predicted from the
    others'. It may save trials but not end a search: where nothing would be left, nothing is removed.
    """
    plain = {deployment: filtered.allowed.get(deployment.precision, ()) for deployment in kept}
    limit = next((limit for limit in target.limits if limit.metric == "size.file" and limit.hard), None)
    if limit is None or not plan.by_files_seen:
        return Narrowed(plain, None)
    by_index = dict(zip(features.indices, features.features, strict=True))
    by_arch = {plan.space.at(index): row for index, row in by_index.items()}
    seen: dict[Deployment, list[_Seen]] = {}
    for observation in observations:
        if observation.size_bytes is not None:
            row = at_precision(by_arch[observation.arch], observation.deployment.precision)
            seen.setdefault(observation.deployment, []).append(
                _Seen(observation.size_bytes, row.weight_bytes, row.depth)
            )
    added = {deployment: min(file.an_operator for file in files) for deployment, files in seen.items()}

    def fits(deployment: Deployment, index: int) -> bool:
        row = at_precision(by_index[index], deployment.precision)
        return row.weight_bytes + row.depth * added.get(deployment, 0.0) <= limit.bound

    allowed = {
        deployment: tuple(index for index in indices if fits(deployment, index))
        for deployment, indices in plain.items()
    }
    if not any(allowed.values()):
        return Narrowed(plain, None)
    left, before = set[int]().union(*allowed.values()), set[int]().union(*plain.values())
    asks = f"weights, and the least that the format added so far, <= {limit.written}{_held_out(seen.values())}"
    return Narrowed(
        allowed, FilterReport(name=limit.metric, asks=asks, kind=EvidenceKind.PREDICTED, removed=len(before - left))
    )


class _Seen(NamedTuple):
    """File size of a reference arch, with its arch's weights (bytes) and operators."""

    size_bytes: int
    weight_bytes: int
    operators: int

    @property
    def an_operator(self) -> float:
        """Overhead of the format on the weights, bytes per operator."""
        return max(0.0, (self.size_bytes - self.weight_bytes) / max(1, self.operators))


def _held_out(seen: Iterable[Sequence[_Seen]]) -> str:
    """Leave-one-out errors of the size prediction as text; empty where no deployment has two files."""
    errors = []
    for files in seen:
        for number, file in enumerate(files):
            others = [*files[:number], *files[number + 1 :]]
            if others:
                predicted = file.weight_bytes + file.operators * min(other.an_operator for other in others)
                errors.append(predicted / file.size_bytes - 1)
    return f"; held out, it errs by {min(errors):+.1%} to {max(errors):+.1%}" if errors else ""


@dataclass(frozen=True)
class _Bound:
    asks: str
    lowest: Callable[[StaticFeatures], int]
    slack_bytes: int = 0


_BOUNDS: Mapping[str, _Bound] = {
    "size.file": _Bound("weights alone", lambda f: f.weight_bytes),
    "memory.model": _Bound(
        "weights and peak activations", lambda f: f.weight_bytes + f.peak_activation_bytes, _MEMORY_SLACK_BYTES
    ),
}


def _report(limit: Limit, bound: _Bound, removed: int) -> FilterReport:
    slack = f" + {format_bytes(bound.slack_bytes)}" if bound.slack_bytes else ""
    return FilterReport(
        name=limit.metric, asks=f"{bound.asks} <= {limit.written}{slack}", kind=EvidenceKind.ANALYTIC, removed=removed
    )
