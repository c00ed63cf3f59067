"""Where knowledge comes from. A teacher answers batches in raw units and normalises them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgekd.records import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["FeatureTeacher", "Teacher", "View"]


class Teacher(Protocol):
    """Gives logits for a batch of views."""

    name: str
    classes: int

    def digest(self) -> Digest:
        """Identity of what it would answer: code reference, weights, normalisation."""
        ...

    def logits(self, batch: Tensor) -> Tensor:
        """Answers (N, classes), float32, without gradient, for a raw-unit float32 batch (N, C, H, W)."""
        ...


@runtime_checkable
class FeatureTeacher(Teacher, Protocol):
    """A teacher whose inner activations can be seen as well."""

    def features(self, batch: Tensor, points: Sequence[str]) -> Mapping[str, Tensor]:
        """Activations at named points, without gradient."""
        ...


class View(Protocol):
    """How samples are seen: a view is a seed per sample, so that teacher and student see the same pixels."""

    def digest(self) -> Digest:
        """Identity of the transformation, without its seed."""
        ...

    def __call__(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Raw samples (N, C, H, W), any dtype, as raw-unit float32 views.

        What sample ``indices[i]`` looks like depends on (seed, indices[i]) alone, never on its batch.
        """
        ...
