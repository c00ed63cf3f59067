"""What a run keeps of its latency predictor: the kernels of its archs, what was known of the device, and every fit.

::

    networks.json            NetworksRecord: the kernels of every arch looked at
    known.json               KnownRecord: what earlier work measured on this device, as it was when this run began
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
    "KnownRecord",
    "KnownTable",
    "MemoryFit",
    "NetworksRecord",
    "PredictorsRecord",
    "PriorFit",
    "Reading",
    "Scales",
]


class Reading(Record):
    """One network as measured: the 5th percentile of a call's time, and the memory that it added where known."""

    kernels: Kernels
    p5_us: float
    memory_bytes: int | None = None


class Costs(Record):
    """What kernels are counted to cost: ``coefficients`` by column of the form (`edgekd.measure.prediction.costs`)."""

    form: str
    vector: int
    constant_us: float
    coefficients: Mapping[str, float]


class Scales(Record):
    """How far kernels deviate from their counted cost, and over what distance that changes.

    Defaults are where they are expected to be (`edgekd.measure.prediction.deviations`).
    """

    kind: float = 0.10  # shared by all kernels of a kind
    kernel: float = 0.15  # of a kernel's own
    channels: float = 1.0  # octaves over which a kernel's own changes
    area: float = 1.5  # octaves
    fill: float = 0.5  # of how full the last vector of channels is
    network: float = 0.05  # of a whole network
    size: float = 1.5  # octaves of its latency
    noise: float = 0.01


class HeldOut(Record):
    """Relative errors, without sign, of networks that the procedure had not seen."""

    samples: int
    median: float
    p95: float
    worst: float
    rank: float | None  # Spearman's, of predicted against measured; None where all are alike


class MemoryFit(Record):
    """What a model adds to memory: bytes, and bytes an element of what is counted (`edgekd.measure.memory`)."""

    constant_bytes: float
    coefficients: tuple[float, float, float]
    samples: int
    error_bytes: float  # that nine of ten networks left out kept to


class NetworksRecord(Filed):
    """Networks as kernels: the distinct ones once, and each network as their places."""

    schema_: Literal["edgekd.networks/1"] = Field(default="edgekd.networks/1", alias="schema")
    kernels: Kernels
    networks: tuple[tuple[int, ...], ...]  # in the order of features.json

    @classmethod
    def of(cls, networks: Sequence[Kernels]) -> Self:
        """Pack them."""
        place: dict[Kernel, int] = {}
        packed = tuple(tuple(place.setdefault(kernel, len(place)) for kernel in network) for network in networks)
        return cls(kernels=tuple(place), networks=packed)

    def unpacked(self) -> tuple[Kernels, ...]:
        """One a network."""
        return tuple(tuple(self.kernels[place] for place in network) for network in self.networks)


class KnownTable(Record):
    """What was measured earlier on one deployment."""

    deployment: Deployment
    readings: tuple[Reading, ...]
    device: str = ""  # of a prior: as it is called
    here: bool = False  # a prior that was measured on the device as it is now, on another deployment than the search's


class KnownRecord(Filed):
    """What earlier work measured on this device, with this target's threads."""

    schema_: Literal["edgekd.known/1"] = Field(default="edgekd.known/1", alias="schema")
    tables: tuple[KnownTable, ...]
    priors: tuple[KnownTable, ...] = ()  # of other devices, states or deployments, for deployments with few readings

    def of(self, deployment: Deployment) -> tuple[Reading, ...]:
        """Those of one deployment."""
        return next((table.readings for table in self.tables if table.deployment == deployment), ())


class DeploymentPredictor(Record):
    """One deployment's fit, to known.json and the run's own reference archs and trials before the batch."""

    deployment: Deployment
    samples: int
    costs: Costs
    scales: Scales
    widths: tuple[float, ...]  # of what was left out, in spreads, ascending
    held_out: HeldOut
    prior: int | None  # the place of the deployment in this record whose fit was this one's prior
    elsewhere: int | None = None  # or the place of the table in known.json's priors that was
    bound_us: float  # what the target leaves for the 5th percentile
    removed: int  # archs that are not proposed on this deployment for it


class PriorFit(Record):
    """A table of known.json's priors as it was fitted, without intervals."""

    table: int
    costs: Costs
    scales: Scales


class DeploymentMemory(Record):
    """One deployment's fit of memory, where the target bounds it; readings as for `DeploymentPredictor`."""

    deployment: Deployment
    fit: MemoryFit
    bound_bytes: float
    removed: int  # of the archs that limits of time leave on this deployment


class PredictorsRecord(Filed):
    """Fitted before a batch was proposed, and in force until the next one."""

    schema_: Literal["edgekd.predictors/1"] = Field(default="edgekd.predictors/1", alias="schema")
    number: int
    batch: int
    deployments: tuple[DeploymentPredictor, ...]  # none where the target bounds no time
    memories: tuple[DeploymentMemory, ...] = ()  # none where it bounds no memory
    priors: tuple[PriorFit, ...] = ()  # those of known.json that were used so far
    seconds: float
    ended_s: float
