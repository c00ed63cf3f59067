"""The one shape of a loss: a frozen record of its options that turns logits and labels into a scalar.

``weight`` is the loss's share in a combination; the loss itself never applies it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from edgekd.records import Record

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss"]


class Loss(Record):
    """Base of every loss. ``needs_teacher`` says whether ``teacher_logits`` may be None."""

    needs_teacher: ClassVar[bool] = True

    weight: NonNegativeFloat | None = None  # None: what the others leave of 1 (see combined.py)

    @abstractmethod
    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> Tensor:
        """Mean over the batch, a scalar, before ``weight``.

        Both logits are (N, C), raw (before any temperature); labels are (N,) int64. No gradient reaches the teacher.
        Raises ValueError when a needed teacher is None.
        """
