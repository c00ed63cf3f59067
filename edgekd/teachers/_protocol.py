"""Protocols of teachers and views. A teacher takes batches in raw units and normalises them itself."""

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
    """Computes logits for a batch of views."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes. Known once the teacher is bound to a task."""
        ...

    def digest(self) -> Digest:
        """Return the identity of its outputs: code reference, weights, normalisation."""
        ...

    def logits(self, batch: Tensor) -> Tensor:
        """Return logits (N, classes), float32, without gradient, for a raw-unit float32 batch (N, C, H, W)."""
        ...


@runtime_checkable
class Bindable(Protocol):
    """Teacher that needs facts of the task, such as the normalisation if it has none of its own."""

    def bound(self, spec: TaskSpec) -> Teacher:
        """Return the teacher for this task. Raises ConfigurationError if they don't fit."""
        ...


@runtime_checkable
class PreparableTeacher(Protocol):
    """Teacher that is first trained on the task's own data."""

    def prepare(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> Teacher:
        """Return the trained teacher, from ``cache`` if it was trained before. Raises Interrupted when ``stop()``."""
        ...


@runtime_checkable
class Sketched(PreparableTeacher, Protocol):
    """Teacher whose network, with random weights, can be inspected before the training."""

    def untrained(self, spec: TaskSpec) -> Teacher:
        """Return what ``prepare`` will return, with random weights. Raises ConfigurationError."""
        ...


@runtime_checkable
class Taught(Protocol):
    """Teacher that may have its own teacher: an assistant between that one and the student."""

    taught_by: Teacher | None  # bound to the same task; None if it was trained on labels alone


@runtime_checkable
class OpenTeacher(Teacher, Protocol):
    """Teacher with an accessible network: inner activations, last layer, gradients."""

    def network(self) -> nn.Module:
        """Return the PyTorch network, in eval mode, frozen; `rows` converts its outputs. Must not be changed."""
        ...

    def prepared(self, batch: Tensor) -> Tensor:
        """Return the network's input for a raw-unit float32 batch (N, C, H, W). Differentiable."""
        ...

    def rows(self, answers: object) -> Tensor:
        """Convert outputs of the network, or of a copy, to the format of `logits`: (N, classes) float32."""
        ...


class View(Protocol):
    """Augmentation under a seed: teacher and student get the same pixels of a sample."""

    def digest(self) -> Digest:
        """Return the identity of the transformation, without its seed."""
        ...

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the augmented samples ``indices`` of ``inputs``: (N, C, H, W), raw units.

        The dtype is the inputs' or float32. ``inputs`` are all of a split's raw samples, on the CPU, and are not
        changed: an augmentation may mix one sample with another. The result for sample i depends on (seed, i) and
        ``inputs`` alone, never on its batch.
        """
        ...

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Return the labels of the same views: (N,) int64, or class shares (N, classes) for mixed samples."""
        ...
