"""Figures with their evidence: value, interval, unit, kind of evidence, subject and method.

Combining figures takes the weaker kind; nothing in edgekd upgrades one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from edgekd.records import Record
from edgekd.units import format_bytes, format_small, format_us

__all__ = ["AccuracyKind", "EvidenceKind", "Figure", "accuracy_of", "find_figure", "weakest"]


_LARGE = 1000.0  # shown with commas, and not with an exponent


class EvidenceKind(str, Enum):
    """Kind of evidence for a figure, strongest first."""

    MEASURED = "measured"  # a real run on the subject
    EMULATED = "emulated"  # the real binary on another machine, or under artificial limits
    SIMULATED = "simulated"  # a vendor's model of the hardware
    PREDICTED = "predicted"  # by edgekd's predictor, with a held-out error
    MODELLED = "modelled"  # energy as watts x time
    ANALYTIC = "analytic"  # counted from the graph

    @property
    def strength(self) -> int:
        """Strength as a number; larger is stronger."""
        order = list(EvidenceKind)
        return len(order) - order.index(self)


class AccuracyKind(str, Enum):
    """Object that was scored, strongest evidence first."""

    ARTEFACT = "artefact"  # the exported file, in its runtime
    TORCH = "torch"  # the PyTorch student
    INHERITED = "inherited"  # pruned weights without recovery, or another model's score


class Figure(Record):
    """Figure: one number that may be shown to a person.

    ``metric`` is spelled as in a target's budgets (``latency.p95``, ``memory.model``, ``size.file``, ``accuracy``).
    ``low`` and ``high`` bound the interval at ``confidence``; they are None where the figure is exact. ``subject`` is
    the digest of the fingerprint (or file) it was taken on.
    """

    metric: str
    value: float
    unit: str
    kind: EvidenceKind
    subject: str
    method: str
    low: float | None = None
    high: float | None = None
    confidence: float | None = None

    def __str__(self) -> str:
        """Format with unit and interval, and with its kind of evidence where that isn't ``measured``."""
        text = self._written(self.value)
        if self.low is not None and self.high is not None:
            text += f" [{self._written(self.low)}, {self._written(self.high)}]"
        return text if self.kind is EvidenceKind.MEASURED else f"{text} ({self.kind.value})"

    def _written(self, value: float) -> str:
        if self.unit == "us":
            return format_us(value)
        if self.unit in ("J", "W"):
            return format_small(value, self.unit)
        number = f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"
        return format_bytes(value) if self.unit == "B" else f"{number} {self.unit}".strip()

    @property
    def upper(self) -> float:
        """Upper end of the interval, or the value where the figure is exact."""
        return self.value if self.high is None else self.high

    @property
    def lower(self) -> float:
        """Lower end of the interval, or the value where the figure is exact."""
        return self.value if self.low is None else self.low


def weakest(kinds: Iterable[EvidenceKind]) -> EvidenceKind:
    """Weakest kind of evidence, that of combined figures. Raises ValueError on none."""
    return min(kinds, key=lambda kind: kind.strength)


def accuracy_of(value: float, subject: str, method: str) -> Figure:
    """Return a scored accuracy as a figure. Its subject is a file or a student."""
    return Figure(metric="accuracy", value=value, unit="", kind=EvidenceKind.MEASURED, subject=subject, method=method)


def find_figure(figures: Sequence[Figure], metric: str) -> Figure | None:
    """Figure of a metric, or None."""
    return next((figure for figure in figures if figure.metric == metric), None)
