"""Latency predictor's records: kernels of a run's archs, prior observations of the device, and every fit.

::

    networks.json            NetworksRecord: the kernels of every arch analysed
    prior_tables.json        PriorTablesRecord: prior observations on this device, as they were when this run began
    predictors/03.json       PredictorsRecord: one fit of every deployment that has enough measurements
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field

from edgekd.ir.kernels import Kernel, Kernels
from edgekd.records import Filed, Record
from edgekd.store.records import Deployment

__all__ = [
    "Costs",
    "DeploymentMemory",
    "DeploymentPredictor",
    "HeldOut",
    "MemoryFit",
    "NetworksRecord",
    "Observation",
    "PredictorsRecord",
    "PriorFit",
    "PriorTable",
    "PriorTablesRecord",
    "Scales",
]


class Observation(Record):
    """Observation of one network: 5th percentile of latency, and the memory that it added where known."""

    kernels: Kernels
    p5_us: float
    memory_bytes: int | None = None


class Costs(Record):
    """Linear cost model of kernels: ``coefficients`` by column of the form (`edgekd.measure.prediction.costs`)."""

    form: str
    vector: int
    constant_us: float
    coefficients: Mapping[str, float]


class Scales(Record):
    """Deviation scales of kernels from their counted cost, and the distances over which deviations change.

    Defaults are their expected values (`edgekd.measure.prediction.deviations`).
    """

    kind: float = 0.10  # shared by all kernels of a kind
    kernel: float = 0.15  # of one kernel
    channels: float = 1.0  # octaves over which a kernel's own deviation changes
    area: float = 1.5  # octaves
    fill: float = 0.5  # of the share of the last vector that channels fill
    network: float = 0.05  # of a whole network
    size: float = 1.5  # octaves of its latency
    noise: float = 0.01


class HeldOut(Record):
    """Absolute relative errors on held-out networks."""

    samples: int
    median: float
    p95: float
    worst: float
    rank: float | None  # Spearman's, of predicted against measured; None where all are equal


class MemoryFit(Record):
    """Memory model: bytes a model adds, as a constant and bytes per counted element (`edgekd.measure.memory`)."""

    constant_bytes: float
    coefficients: tuple[float, float, float]
    samples: int
    error_bytes: float  # 90th percentile of the held-out errors


class NetworksRecord(Filed):
    """Networks as kernels: each distinct kernel once, and each network as indices into them."""

    schema_: Literal["edgekd.networks/1"] = Field(default="edgekd.networks/1", alias="schema")
    kernels: Kernels
    networks: tuple[tuple[int, ...], ...]  # in the order of features.json

    @classmethod
    def of(cls, networks: Sequence[Kernels]) -> Self:
        """Pack networks into distinct kernels and indices."""
        place: dict[Kernel, int] = {}
        packed = tuple(tuple(place.setdefault(kernel, len(place)) for kernel in network) for network in networks)
        return cls(kernels=tuple(place), networks=packed)

    def unpacked(self) -> tuple[Kernels, ...]:
        """Return the kernels of each network."""
        return tuple(tuple(self.kernels[place] for place in network) for network in self.networks)


class PriorTable(Record):
    """Prior observations on one deployment."""

    deployment: Deployment
    observations: tuple[Observation, ...]
    device: str = ""  # name of the device, for a prior
    here: bool = False  # a prior from this device in its present state, on a deployment outside the search


class PriorTablesRecord(Filed):
    """Prior observations from earlier work on this device, with this target's threads."""

    schema_: Literal["edgekd.prior-tables/1"] = Field(default="edgekd.prior-tables/1", alias="schema")
    tables: tuple[PriorTable, ...]
    priors: tuple[PriorTable, ...] = ()  # of other devices, states or deployments, where observations are few

    def of(self, deployment: Deployment) -> tuple[Observation, ...]:
        """Observations on one deployment."""
        return next((table.observations for table in self.tables if table.deployment == deployment), ())


class DeploymentPredictor(Record):
    """Fit of one deployment, to prior_tables.json and the run's own reference archs and trials before the batch."""

    deployment: Deployment
    samples: int
    costs: Costs
    scales: Scales
    widths: tuple[float, ...]  # held-out errors in spreads, ascending
    held_out: HeldOut
    prior: int | None  # index in this record of the deployment whose fit was this one's prior
    prior_table: int | None = None  # or index of the prior table in prior_tables.json's priors
    bound_us: float  # the target's budget for the 5th percentile
    removed: int  # archs not proposed on this deployment because of it


class PriorFit(Record):
    """Fit of a prior table of prior_tables.json, without intervals."""

    table: int
    costs: Costs
    scales: Scales


class DeploymentMemory(Record):
    """Memory fit of one deployment, where the target bounds memory; observations as for `DeploymentPredictor`."""

    deployment: Deployment
    fit: MemoryFit
    bound_bytes: float
    removed: int  # of the archs that limits of time leave on this deployment


class PredictorsRecord(Filed):
    """Fits made before a batch was proposed, in force until the next record."""

    schema_: Literal["edgekd.predictors/1"] = Field(default="edgekd.predictors/1", alias="schema")
    number: int
    batch: int
    deployments: tuple[DeploymentPredictor, ...]  # none where the target bounds no time
    memories: tuple[DeploymentMemory, ...] = ()  # none where the target bounds no memory
    priors: tuple[PriorFit, ...] = ()  # those of prior_tables.json that were used so far
    seconds: float
    ended_s: float
