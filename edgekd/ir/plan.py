"""Compression plans, and candidates: what a search proposes and a device measures."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from edgekd.artefacts import Backend, Precision
from edgekd.ir.space import Arch
from edgekd.records import Record

__all__ = ["Candidate", "CompressionPlan"]


class CompressionPlan(Record):
    """What is done to a trained arch before it ships."""

    precision: Precision = Precision.FLOAT32
    untouched: bool = False  # the arch's own weights as they came: quantized, never trained

    @model_serializer(mode="wrap")
    def _as_it_always_was(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what says nothing here."""
        return {name: value for name, value in whole(self).items() if name != "untouched" or value}


class Candidate(Record):
    """What a search proposes and a device measures: family, arch, compression plan, and the backend it is meant for."""

    family: str
    arch: Arch
    plan: CompressionPlan = CompressionPlan()
    backend: Backend | None = None  # the arm; None while it is open

    def __str__(self) -> str:
        where = f" on {self.backend}" if self.backend else ""
        arch = f" {self.arch}" if self.arch.choices else ""
        arch = " as it came" if self.plan.untouched else arch
        return f"{self.family}{arch} {self.plan.precision.value}{where}"
