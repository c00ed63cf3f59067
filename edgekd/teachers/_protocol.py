"""Where knowledge comes from. A teacher answers batches in raw units and normalises them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgekd.records import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.students._protocol import StageProgress
    from edgekd.tasks._protocol import Task, TaskSpec

__all__ = ["Bindable", "FeatureTeacher", "Preparable", "Teacher", "View"]


class Teacher(Protocol):
    """Gives logits for a batch of views."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    @property
    def classes(self) -> int:
        """How many classes it tells apart. Known once it is bound to a task."""
        ...

    def digest(self) -> Digest:
        """Identity of what it would answer: code reference, weights, normalisation."""
        ...

    def logits(self, batch: Tensor) -> Tensor:
        """Answers (N, classes), float32, without gradient, for a raw-unit float32 batch (N, C, H, W)."""
        ...


@runtime_checkable
class Bindable(Protocol):
    """A teacher that still has to learn something from the task: its normalisation, where it has none of its own."""

    def bound(self, spec: TaskSpec) -> Teacher:
        """The teacher for this task. Raises ConfigurationError where it can't be."""
        ...


@runtime_checkable
class Preparable(Protocol):
    """A teacher that has to be made first, from the task's own data."""

    def prepare(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> Teacher:
        """The teacher that answers, from ``cache`` where it was made before. Raises Interrupted when ``stop()``."""
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
