"""What training knows of one kind of head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from edgekd.tasks._protocol import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BalanceName", "Comparison", "HeadTraining"]

BalanceName = Literal["none", "uncertainty", "gradnorm"]


@dataclass(frozen=True)
class Comparison:
    """A head's answers as any loss on logits takes them, and what else of them is to be like the teacher's."""

    student: Tensor  # (M, C), raw
    teacher: Tensor  # (M, C), raw
    labels: Tensor  # (M,) int64: the true class, or the teacher's where nobody knows it
    rest: Tensor | None = None  # scalar


class HeadTraining(Protocol):
    """One kind of head, written once."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Scalar over the samples that carry the label; None where none does."""
        ...

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], taught: Sequence[Tensor], labels: Tensor
    ) -> Comparison | None:
        """What losses between student and teacher are given; None where there is nothing to compare."""
        ...
