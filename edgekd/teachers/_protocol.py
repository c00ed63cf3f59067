"""Where knowledge comes from. A teacher answers batches in raw units and normalises them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgekd.records import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.events import StageProgress
    from edgekd.tasks._protocol import Task, TaskSpec

__all__ = ["Bindable", "OpenTeacher", "PreparableTeacher", "Sketched", "Taught", "Teacher", "View"]


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
class PreparableTeacher(Protocol):
    """A teacher that has to be made first, from the task's own data."""

    def prepare(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> Teacher:
        """The teacher that answers, from ``cache`` where it was made before. Raises Interrupted when ``stop()``."""
        ...


@runtime_checkable
class Sketched(PreparableTeacher, Protocol):
    """A teacher that can be looked at before it is made: the same network, with random weights."""

    def untrained(self, spec: TaskSpec) -> Teacher:
        """What ``prepare`` will return, but for its weights. Raises ConfigurationError."""
        ...


@runtime_checkable
class Taught(Protocol):
    """A teacher that may have had a teacher itself: an assistant between that one and the student."""

    taught_by: Teacher | None  # bound to the same task; None where it learnt from labels alone


@runtime_checkable
class OpenTeacher(Teacher, Protocol):
    """A teacher whose network can be looked into: at its inner activations, its last layer, its gradients."""

    def network(self) -> nn.Module:
        """Its PyTorch network, in eval mode, frozen: what it gives, `rows` reads. Not to be changed."""
        ...

    def prepared(self, batch: Tensor) -> Tensor:
        """What the network takes for a raw-unit float32 batch (N, C, H, W). Differentiable."""
        ...

    def rows(self, answers: object) -> Tensor:
        """What the network, or a copy of it, gave for a prepared batch, as `logits` tells it: (N, classes) float32."""
        ...


class View(Protocol):
    """How samples are seen: a view is a seed per sample, so that teacher and student see the same pixels."""

    def digest(self) -> Digest:
        """Identity of the transformation, without its seed."""
        ...

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """What the samples ``indices`` of ``inputs`` look like: (N, C, H, W), raw units, the inputs' dtype or float32.

        ``inputs`` are all of a split's raw samples, on the CPU, and are not changed: a view may mix one sample with
        another. What sample i looks like depends on (seed, i) and ``inputs`` alone, never on the batch it comes in.
        """
        ...

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """The labels of the same views: (N,) int64, or shares of each class (N, classes), where samples are mixed."""
        ...
