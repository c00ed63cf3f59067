"""Differentiable search's records in a run folder, beside those of every search.

::

    latencies/02.json          LatenciesRecord: a batch of archs, measured untrained on one deployment
    latency_model.json         LatencyModelRecord: the model fitted to them, and the terms of the loss
    supernet.json              SupernetRecord: training of the choice, and the archs nearest to it
    teacher-tunings/0003.json  TeacherTuningRecord: best teacher and temperature of a finalist
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.space import Arch
from edgekd.records import Digest, Extended, Filed, Record
from edgekd.store.records import Accuracy, Deployment, DeploymentObservation, FeaturesRecord

__all__ = [
    "BlockCostRecord",
    "CostTerm",
    "EnergyModelRecord",
    "LatenciesRecord",
    "LatencyModelRecord",
    "SupernetPoint",
    "SupernetRecord",
    "TeacherTuningRecord",
]


class LatenciesRecord(Filed):
    """Some archs on one deployment, measured side by side."""

    schema_: Literal["edgekd.latencies/1"] = Field(default="edgekd.latencies/1", alias="schema")
    number: int
    observations: tuple[DeploymentObservation, ...]
    ended_s: float = 0.0


class CostTerm(Record):
    """Cost term of the loss: its bound, or the reason why there is none."""

    name: str  # latency, bytes, size, energy
    bound: float | None  # None where the term was refused
    unit: str
    kind: EvidenceKind
    detail: str


class BlockCostRecord(Record):
    """Block costs: counts of one part of every arch, row by row over the choices of its axes."""

    name: str
    axes: tuple[str, ...]
    counts: Mapping[str, tuple[float, ...]]


class EnergyModelRecord(Record):
    """Energy model of a call on the same deployment, in microjoules; ``kind`` is that of the fitted figures."""

    kind: EvidenceKind
    form: str
    constant_uj: float
    coefficients: Mapping[str, float]  # by part and count
    samples: int
    error_median: float  # held out, relative
    error_worst: float


class LatencyModelRecord(Filed, Extended):
    """Latency model on one deployment, and the cost terms made of it. Evidence kind: predicted."""

    added: ClassVar[frozenset[str]] = frozenset({"energy"})
    schema_: Literal["edgekd.latency-model/1"] = Field(default="edgekd.latency-model/1", alias="schema")
    deployment: Deployment
    form: str
    constant_us: float
    coefficients: Mapping[str, float]  # by part and count
    samples: int
    error_median: float  # held out, relative
    error_worst: float
    bandwidth: Figure | None
    block_costs: tuple[BlockCostRecord, ...]
    terms: tuple[CostTerm, ...]
    energy: EnergyModelRecord | None = None  # None where the target bounds none, or too few were metered
    ended_s: float = 0.0

    @property
    def budget_us(self) -> float:
        """Latency budget for the 5th percentile, microseconds."""
        return next(term.bound for term in self.terms if term.name == "latency" and term.bound is not None)


class SupernetPoint(Record):
    """Epoch of the supernet."""

    epoch: int
    loss: float  # of the weights, on their training samples
    held_out_loss: float | None  # of the choice; None while it is fixed
    temperature: float
    open_bits: float  # entropy of the choice
    shares: Mapping[str, float]  # expected cost over its bound, by term
    multipliers: Mapping[str, float]
    mode: Arch
    images_per_s: float


class SupernetRecord(Filed):
    """Result of the trained choice, and its most probable archs that are predicted to keep the budget."""

    schema_: Literal["edgekd.supernet/1"] = Field(default="edgekd.supernet/1", alias="schema")
    logits: Mapping[str, tuple[float, ...]]  # by axis
    points: tuple[SupernetPoint, ...]
    mode: Arch
    weights: Digest  # of the supernet
    nearby: FeaturesRecord
    order: tuple[int, ...]  # indices of ``nearby``, most probable first
    predicted_us: tuple[float, ...]  # in the order of ``order``
    even: tuple[int, ...] = ()  # those of ``order`` that are evenly scaled
    ended_s: float = 0.0


class TeacherTuningRecord(Filed):
    """Teacher tuning of a finalist: short trainings with several teachers and temperatures, by successive halving."""

    schema_: Literal["edgekd.teacher-tuning/1"] = Field(default="edgekd.teacher-tuning/1", alias="schema")
    trial: int
    rounds: tuple[Mapping[str, Accuracy], ...]  # by setting, as written; fewer from round to round
    temperature: float
    assistant: bool = False  # whether the assistant teaches it
    ended_s: float = 0.0
