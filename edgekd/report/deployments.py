"""Heat table of deployments (backend by precision) over the reference archs, with never-slower marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.artefacts import Backend
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.store.records import Deployment, DeploymentObservation, DeploymentsRecord

__all__ = ["DeploymentCell", "deployment_rows"]


@dataclass(frozen=True)
class DeploymentCell:
    """Cell of one deployment. ``ratio`` is its p5 over the fastest one's, a geometric mean over shared archs."""

    text: str
    title: str
    heat: int  # 0 fastest .. 4 slowest; -1 no figure
    kept: bool
    mark: str  # result of the never-slower rule


def deployment_rows(
    deployments: DeploymentsRecord,
) -> tuple[list[Precision], list[tuple[Backend, list[DeploymentCell | None]]]]:
    """Columns (precisions) and rows (backends with a cell per precision; None where the pair was no deployment)."""
    known = dict.fromkeys(observation.deployment for observation in deployments.observations)
    precisions = [
        precision for precision in Precision if any(deployment.precision is precision for deployment in known)
    ]
    backends = list(dict.fromkeys(deployment.backend for deployment in known))
    read = {
        deployment: _by_reference_arch(
            [observation for observation in deployments.observations if observation.deployment == deployment]
        )
        for deployment in known
    }
    fastest = _fastest(read)
    rows = []
    for backend in backends:
        cells = []
        for precision in precisions:
            deployment = Deployment(backend=backend, precision=precision)
            cells.append(_cell(deployments, deployment, read[deployment], fastest) if deployment in known else None)
        rows.append((backend, cells))
    return precisions, rows


def _by_reference_arch(observations: Sequence[DeploymentObservation]) -> dict[Arch, float]:
    return {observation.arch: observation.p5_us.value for observation in observations if observation.p5_us is not None}


def _fastest(read: Mapping[Deployment, Mapping[Arch, float]]) -> Mapping[Arch, float]:
    """Reference of the ratios: the fastest of the deployments measured on the most reference archs."""
    most = max((len(values) for values in read.values()), default=0)
    return min((values for values in read.values() if len(values) == most), key=_mean, default={})


def _mean(values: Mapping[Arch, float]) -> float:
    return math.exp(sum(map(math.log, values.values())) / len(values)) if values else math.inf


def _cell(
    deployments: DeploymentsRecord, deployment: Deployment, read: Mapping[Arch, float], fastest: Mapping[Arch, float]
) -> DeploymentCell:
    dropped = next((drop.reason for drop in deployments.dropped if drop.deployment == deployment), "")
    twin = next((mark for mark in deployments.never_slower if mark.deployment == deployment), None)
    mark = ""
    if twin is not None and not twin.faster:
        mark = f"not faster than float32 ({twin.ratio:.2f}x)" + (", smaller" if twin.smaller else "")
        if twin.regressed:
            mark += ": " + ", ".join(twin.regressed[:3])
    shared = [arch for arch in read if arch in fastest]
    if not shared:
        detail = next(
            (
                observation.detail
                for observation in deployments.observations
                if observation.deployment == deployment and observation.detail
            ),
            "",
        )
        return DeploymentCell("no figure", detail or dropped, -1, deployment in deployments.kept, mark)
    # a deployment that dropped out early was measured on fewer reference archs: only those are compared
    ratio = _mean({arch: read[arch] / fastest[arch] for arch in shared})
    heat = min(4, int(math.log2(ratio) * 2.5)) if ratio > 1 else 0
    title = dropped or f"geometric mean over {len(shared)} of {len(deployments.reference_archs)} reference archs"
    return DeploymentCell(f"{ratio:.2f}x", title, heat, deployment in deployments.kept, mark)
