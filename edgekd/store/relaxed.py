"""What a search whose choice is trained leaves in its run folder, beside the records of every search::

latencies/02.json        LatenciesRecord: a batch of archs, measured untrained on one deployment
latency_model.json       LatencyModelRecord: what was fitted to them, and the terms of the loss
relaxation.json          RelaxationRecord: how the choice was trained, and the archs nearest to it
gaps/0003.json           GapRecord: from whom, and at which temperature, a finalist learns best
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.space import Arch
from edgekd.records import Digest, Filed, Record
from edgekd.store.records import Accuracy, Deployment, DeploymentReading, FeaturesRecord

__all__ = [
    "CostTerm",
    "EnergyModelRecord",
    "GapRecord",
    "LatenciesRecord",
    "LatencyModelRecord",
    "PieceRecord",
    "RelaxPoint",
    "RelaxationRecord",
]


class LatenciesRecord(Filed):
    """Some archs on one deployment, measured side by side."""

    schema_: Literal["edgekd.latencies/1"] = Field(default="edgekd.latencies/1", alias="schema")
    number: int
    readings: tuple[DeploymentReading, ...]
    ended_s: float = 0.0


class CostTerm(Record):
    """A term of the loss: what it bounds, or why there is none."""

    name: str  # latency, bytes, size, energy
    bound: float | None  # None where the term was refused
    unit: str
    kind: EvidenceKind
    detail: str


class PieceRecord(Record):
    """A part of every arch and what is counted of it: row by row over the choices of its axes."""

    name: str
    axes: tuple[str, ...]
    counts: Mapping[str, tuple[float, ...]]


class EnergyModelRecord(Record):
    """Energy of a call on the same deployment, in microjoules; ``kind`` is that of what it was fitted to."""

    kind: EvidenceKind
    form: str
    constant_uj: float
    coefficients: Mapping[str, float]  # by part and count
    samples: int
    error_median: float  # held out, relative
    error_worst: float


class LatencyModelRecord(Filed):
    """The model of latency on one deployment, and the terms made of it. Evidence kind: predicted."""

    schema_: Literal["edgekd.latency-model/1"] = Field(default="edgekd.latency-model/1", alias="schema")
    deployment: Deployment
    form: str
    constant_us: float
    coefficients: Mapping[str, float]  # by part and count
    samples: int
    error_median: float  # held out, relative
    error_worst: float
    bandwidth: Figure | None
    pieces: tuple[PieceRecord, ...]
    terms: tuple[CostTerm, ...]
    energy: EnergyModelRecord | None = None  # None where the target bounds none, or too little of it was read
    ended_s: float = 0.0

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """``energy`` left out where there is none, as in records of earlier versions."""
        return {name: value for name, value in handler(self).items() if name != "energy" or value}

    @property
    def budget_us(self) -> float:
        """What the 5th percentile of latency may be."""
        return next(term.bound for term in self.terms if term.name == "latency" and term.bound is not None)


class RelaxPoint(Record):
    """One epoch of the relaxed network."""

    epoch: int
    loss: float  # of the weights, on the samples they learn from
    held_out_loss: float | None  # of the choice; None while it stands still
    temperature: float
    open_bits: float  # entropy of the choice
    shares: Mapping[str, float]  # expected cost over its bound, by term
    multipliers: Mapping[str, float]
    mode: Arch
    images_per_s: float


class RelaxationRecord(Filed):
    """What the choice came to, and the archs that are most probable by it and keep the budget, as predicted."""

    schema_: Literal["edgekd.relaxation/1"] = Field(default="edgekd.relaxation/1", alias="schema")
    logits: Mapping[str, tuple[float, ...]]  # by axis
    points: tuple[RelaxPoint, ...]
    mode: Arch
    weights: Digest  # of the relaxed network
    nearby: FeaturesRecord
    order: tuple[int, ...]  # indices of ``nearby``, the most probable first
    predicted_us: tuple[float, ...]  # in the order of ``order``
    even: tuple[int, ...] = ()  # those of ``order`` that are evenly scaled
    ended_s: float = 0.0


class GapRecord(Filed):
    """A finalist's short trainings with several teachers and temperatures, by successive halving."""

    schema_: Literal["edgekd.gap/1"] = Field(default="edgekd.gap/1", alias="schema")
    trial: int
    rounds: tuple[Mapping[str, Accuracy], ...]  # by what was tried, as it is written; fewer from round to round
    temperature: float
    assistant: bool = False  # whether the assistant teaches it
    ended_s: float = 0.0
