"""What a feature loss is while a student trains: a module with parameters of its own, gone afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Batch", "Criterion"]


@dataclass(frozen=True)
class Batch:
    """What a criterion may know of a batch besides activations."""

    indices: Tensor  # (N,) int64, of the samples in the training split
    labels: Tensor  # (N,) int64, or shares of each class (N, C) where samples are mixed; (0,) with several heads


class Criterion(nn.Module):
    """Compares a student's activations with a teacher's, at the pairs of points of its `Site`, in that order.

    Parameters (connectors, discriminators) are trained by the same steps as the student, without weight decay on
    small tensors; buffers (memory banks) are kept in checkpoints.
    """

    @abstractmethod
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Mean over the batch, a scalar, float32. Activations are (N, *shape), float32; the teacher's have no gradient.

        In eval mode nothing in the criterion changes.
        """

    def attach(self, module: nn.Module) -> None:
        """Change the student's own network before it trains (in place). Most leave it alone."""

    def detach_from(self, module: nn.Module) -> None:
        """Undo that on the trained network or a copy of it, so that it has the layers of its arch again (in place)."""
