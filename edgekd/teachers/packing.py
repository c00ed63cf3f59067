"""Packing of several heads' raw outputs into one row a sample, so that they are stored and passed like logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Packed", "Packing", "packed", "packing_in", "packing_of", "unpacked"]


class Packed(NamedTuple):
    """Place of one raw output in a row."""

    name: str
    shape: tuple[int, ...]  # without the batch axis

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


Packing = Sequence[Packed]


def packing_of(raw: Mapping[str, Tensor]) -> tuple[Packed, ...]:
    """Return the layout in which these outputs (N, ...) are packed: one after the other."""
    return tuple(Packed(name, tuple(answer.shape[1:])) for name, answer in raw.items())


def packed(raw: Mapping[str, Tensor]) -> Tensor:
    """Pack outputs to (N, numbers) float32."""
    import torch

    return torch.cat([answer.float().flatten(1) for answer in raw.values()], 1)


def unpacked(rows: Tensor, packing: Packing) -> dict[str, Tensor]:
    """Return raw outputs by name, as views of ``rows`` (N, numbers). Raises ValueError if the row length differs."""
    import torch

    if rows.shape[1] != sum(part.size for part in packing):
        raise ValueError(f"rows of {rows.shape[1]} numbers don't fit the packing {tuple(packing)}")
    parts = torch.split(rows, [part.size for part in packing], 1)
    return {part.name: piece.reshape(-1, *part.shape) for part, piece in zip(packing, parts, strict=True)}


@runtime_checkable
class PacksAnswers(Protocol):
    """Teacher with other outputs than the logits of one classification head."""

    @property
    def packing(self) -> tuple[Packed, ...]:
        """Layout of its outputs; empty for the logits of one classification head."""
        ...


def packing_in(teacher: object) -> tuple[Packed, ...]:
    """Return the layout of a teacher's outputs; empty for the logits of one classification head."""
    return teacher.packing if isinstance(teacher, PacksAnswers) else ()
