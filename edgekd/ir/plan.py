"""Compression plans and candidates."""

from __future__ import annotations

from typing import ClassVar

from edgekd.artefacts import Backend
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.records import Extended, Record

__all__ = ["Candidate", "CompressionPlan"]


class CompressionPlan(Extended):
    """Compression of a trained arch."""

    added: ClassVar[frozenset[str]] = frozenset({"untouched"})

    precision: Precision = Precision.FLOAT32
    untouched: bool = False  # the arch's own weights as they came: quantized, never trained


class Candidate(Record):
    """Proposal of a search, measured by a device: family, arch, compression plan, and backend."""

    family: str
    arch: Arch
    plan: CompressionPlan = CompressionPlan()
    backend: Backend | None = None  # the deployment; None while it is open

    def __str__(self) -> str:
        where = f" on {self.backend}" if self.backend else ""
        arch = f" {self.arch}" if self.arch.choices else ""
        arch = " as it came" if self.plan.untouched else arch
        return f"{self.family}{arch} {self.plan.precision.value}{where}"
