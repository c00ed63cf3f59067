"""Training interface of one kind of head: loss on labels, and the logits to distil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from edgekd.distill.losses._protocol import Loss, OfLabels, OfNumbers, OutputKind
from edgekd.tasks._protocol import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LABELS", "BalanceName", "HeadLogits", "HeadTraining"]

LABELS = "ce"
"""Name of the loss that stands for each head's own loss on labels."""

BalanceName = Literal["none", "uncertainty", "gradnorm"]


@dataclass(frozen=True)
class HeadLogits:
    """Logits of a head as a loss takes them, and an additional distillation term."""

    student: Tensor  # (M, C), raw
    teacher: Tensor  # (M, C), raw
    labels: Tensor  # (M,) int64: the true class, else the teacher's; unchanged for labels and numbers
    rest: Tensor | None = None  # scalar
    known: Tensor | None = None  # (M,) bool: where a label of classes is a true one
    of: OutputKind = "classes"

    def by(self, loss: Loss) -> Tensor:
        """Return a loss of these logits, a scalar.

        Raises ValueError if the loss has no form for this kind of output.
        """
        if self.of == "classes":
            value = loss(self.student, self.teacher, self.labels)
        elif self.of == "labels" and isinstance(loss, OfLabels):
            value = loss.of_labels(self.student, self.teacher)
        elif self.of == "numbers" and isinstance(loss, OfNumbers):
            value = loss.of_numbers(self.student, self.teacher)
        else:
            raise ValueError(f"{type(loss).__name__} has no form for {self.of}")
        return value if self.rest is None else value + self.rest


class HeadTraining(Protocol):
    """Training of one kind of head."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the scalar mean over labelled samples; None if no sample is labelled."""
        ...

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return the inputs of distillation losses; None if there is nothing to compare."""
        ...
