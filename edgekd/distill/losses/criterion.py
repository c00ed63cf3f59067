"""Criterion: the module that computes a feature loss, with its own parameters; dropped after the training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Batch", "Criterion"]


@dataclass(frozen=True)
class Batch:
    """Facts about a batch for a criterion, besides activations."""

    indices: Tensor  # (N,) int64, of the samples in the training split
    labels: Tensor  # (N,) int64, or shares of each class (N, C) where samples are mixed; (0,) with several heads


class Criterion(nn.Module):
    """Compares the student's activations with the teacher's at the pairs of points of its `Site`, in that order.

    Parameters (connectors, discriminators) are trained by the same steps as the student, without weight decay on small
    tensors; buffers (memory banks) are kept in checkpoints.
    """

    @abstractmethod
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean over the batch, a scalar, float32.

        Activations are (N, *shape), float32; the teacher's are detached.

        In eval mode nothing in the criterion changes.
        """

    def attach(self, module: nn.Module) -> None:
        """Change the student's network before it trains, in place. Most criteria leave it unchanged."""

    def detach_from(self, module: nn.Module) -> None:
        """Undo `attach` on the trained network or a copy, in place, so that it has the layers of its arch again."""
