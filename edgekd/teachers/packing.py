"""Raw answers of several heads as one row a sample, so that they are kept and handed on as logits are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.tasks._protocol import HeadSpec

__all__ = ["Packed", "Packing", "packed", "packing_in", "packing_of", "raw_of", "unpacked"]


class Packed(NamedTuple):
    """One raw answer's place in a row."""

    name: str
    shape: tuple[int, ...]  # without the batch axis

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


Packing = Sequence[Packed]


def packing_of(raw: Mapping[str, Tensor]) -> tuple[Packed, ...]:
    """How these answers (N, ...) are packed: one after the other."""
    return tuple(Packed(name, tuple(answer.shape[1:])) for name, answer in raw.items())


def packed(raw: Mapping[str, Tensor]) -> Tensor:
    """(N, numbers) float32."""
    import torch

    return torch.cat([answer.float().flatten(1) for answer in raw.values()], 1)


def unpacked(rows: Tensor, packing: Packing) -> dict[str, Tensor]:
    """Raw answers by name, views of ``rows`` (N, numbers). Raises ValueError where the packing is of other rows."""
    import torch

    if rows.shape[1] != sum(part.size for part in packing):
        raise ValueError(f"rows of {rows.shape[1]} numbers don't fit the packing {tuple(packing)}")
    parts = torch.split(rows, [part.size for part in packing], 1)
    return {part.name: piece.reshape(-1, *part.shape) for part, piece in zip(packing, parts, strict=True)}


@runtime_checkable
class PacksAnswers(Protocol):
    """A teacher of other answers than the logits of one classification head."""

    @property
    def packing(self) -> tuple[Packed, ...]:
        """How its answers are packed; empty where they are logits of one classification head."""
        ...


def packing_in(teacher: object) -> tuple[Packed, ...]:
    """How a teacher packs its answers; empty where they are logits of one classification head."""
    return teacher.packing if isinstance(teacher, PacksAnswers) else ()


def raw_of(answers: object, heads: Sequence[HeadSpec]) -> dict[str, Tensor] | None:
    """What a network gave as raw answers by name (`students.heads`), or None where it can't be read as such.

    A mapping by name; of a single head also its tensors in order, or the one tensor it has.
    """
    from torch import Tensor

    from edgekd.students.heads.many import raw_names

    names = [name for head in heads for name in raw_names(head)]
    if isinstance(answers, Tensor):
        answers = (answers,)
    if isinstance(answers, (tuple, list)):
        answers = dict(zip(names, answers, strict=True)) if len(answers) == len(names) else {}
    if not isinstance(answers, Mapping) or not set(names) <= set(answers):
        return None
    if not all(isinstance(answers[name], Tensor) for name in names):
        return None
    return {name: answers[name] for name in names}
