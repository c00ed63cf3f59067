"""Heads of a task on one trunk, in the order of its spec.

Heads for the whole image read the trunk's last features; dense heads read the neck's map, at stride 4 if the trunk has
such a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from edgekd.students.heads.classification import Classification
from edgekd.students.heads.detection import Detection
from edgekd.students.heads.neck import Neck
from edgekd.students.heads.segmentation import Segmentation
from edgekd.tasks._protocol import HeadKind, HeadSpec, TaskSpec

__all__ = ["Heads", "SharesTrunk", "raw_names"]

_STRIDE = 4
_DENSE: Mapping[HeadKind, type[Segmentation | Detection]] = {"segmentation": Segmentation, "detection": Detection}
_RAW: Mapping[HeadKind, tuple[str, ...]] = {
    "classification": ("",),
    "segmentation": ("",),
    "detection": (".heat", ".box"),
    "multilabel": ("",),
    "regression": ("",),
}


@runtime_checkable
class SharesTrunk(Protocol):
    """Module that knows the last weights on which every head's outputs depend."""

    def shared_weights(self) -> Sequence[nn.Parameter]:
        """Return few weights: gradients with respect to them are taken for each head."""
        ...


def raw_names(head: HeadSpec) -> tuple[str, ...]:
    """Return the names of a head's raw outputs, in its module's order."""
    return tuple(head.name + suffix for suffix in _RAW[head.kind])


class Heads(nn.Module):
    """Maps the features of each stage, with ``strides`` (ascending), to raw outputs by name."""

    def __init__(self, spec: TaskSpec, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.specs = spec.heads
        self.first = next((place for place, stride in enumerate(strides) if stride >= _STRIDE), len(strides) - 1)
        self.pools_once = sum(head.kind not in _DENSE for head in spec.heads) > 1
        dense = any(head.kind in _DENSE for head in spec.heads)
        width = widths[self.first]
        self.neck = Neck(widths[self.first :], width) if dense else None
        self.heads = nn.ModuleList(
            _DENSE[head.kind](head, width) if head.kind in _DENSE else Classification(head, widths[-1])
            for head in spec.heads
        )

    def forward(self, stages: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return raw outputs by name, head after head."""
        merged = self.neck(stages[self.first :]) if self.neck is not None else None
        # the same mean twice is one value in a file, and would have two encodings
        last = stages[-1].mean((2, 3)) if self.pools_once else stages[-1]
        raw: dict[str, Tensor] = {}
        for spec, head in zip(self.specs, self.heads, strict=True):
            raw |= zip(raw_names(spec), head(merged if spec.kind in _DENSE else last), strict=True)
        return raw
