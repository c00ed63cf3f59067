"""Base classes of augmentations (``augment`` in a recipe): frozen records of options that implement `View`.

`PixelAugmentation` transforms one sample at a time, `ImageAugmentation` only images; an augmentation that mixes samples
is a `MixingAugmentation` (mixing.py). All random numbers come from random.py, so they depend on (seed, sample) alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from edgekd.errors import Problem
from edgekd.records import Digest, Record, digest_json
from edgekd.tasks._protocol import InputSpec, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Augmentation", "Bound", "ImageAugmentation", "PixelAugmentation", "only_images"]


class Augmentation(Record):
    """Base of every augmentation that can be written under ``augment``."""

    shorthand: ClassVar[str | None] = None  # the field that a bare value stands for: `rotate: 15`
    moves: ClassVar[bool] = True  # true: it moves pixels, and regression labels may change
    version: ClassVar[int] = 1  # raised when the same options show other pixels

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the output besides the seed and the samples, as JSON values."""
        kind = type(self)
        ours = kind.__module__.startswith("edgekd.")
        name = kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"
        return {"view": name, "version": kind.version, "options": self.model_dump(mode="json")}

    def digest(self) -> Digest:
        """Return the digest of `identity`: the transformation without its seed."""
        return digest_json(self.identity())

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return the reasons why this task's samples can't be augmented so. The caller adds the augmentation's name."""
        del spec
        return []

    def bound(self, spec: TaskSpec) -> Self:
        """Return the augmentation for this task's samples: itself, if it needs no information about them."""
        del spec
        return self

    @abstractmethod
    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the augmented samples ``indices`` of ``inputs`` (all raw samples): (N, C, H, W) or (N, C, L)."""

    @abstractmethod
    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Return the targets of the augmented samples: labels (N,) int64, or class shares (N, classes) float32."""


class Bound(Augmentation):
    """Augmentation that needs the task's input specification: the range of raw values, or the image size."""

    _input: InputSpec | None = PrivateAttr(default=None)

    def bound(self, spec: TaskSpec) -> Self:
        """Return a copy with the task's input specification."""
        copy = self.model_copy()
        copy._input = spec.input
        return copy

    @property
    def input(self) -> InputSpec:
        """The task's input specification. Raises ValueError before `bound`."""
        if self._input is None:
            raise ValueError(f"{type(self).__name__} is not bound to a task: use bound(spec)")
        return self._input

    def identity(self) -> dict[str, Any]:
        """Return the identity with the input's shape and raw range, once bound."""
        known = None if self._input is None else self._input.model_dump(mode="json", include={"shape", "raw_range"})
        return {**super().identity(), "input": known}


class PixelAugmentation(Augmentation):
    """Augmentation of one sample at a time; the label is kept."""

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the augmented samples ``indices`` of ``inputs`` (all raw samples): (N, C, H, W) or (N, C, L)."""
        import torch

        return self.pixels(inputs.index_select(0, torch.from_numpy(indices)), indices, seed)

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Return the samples' labels (N,) int64."""
        import torch

        del seed, classes
        return labels.index_select(0, torch.from_numpy(indices))

    @abstractmethod
    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the augmented batch in its own shape and dtype. ``batch`` is on the CPU and is not changed."""


class ImageAugmentation(PixelAugmentation):
    """Augmentation for images only."""

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if the samples are not images."""
        return [*only_images(spec), *super().check(spec)]


def only_images(spec: TaskSpec) -> list[Problem]:
    """Return a problem if the task's samples are not images."""
    if spec.input.is_image:
        return []
    shape = " x ".join(map(str, spec.input.shape))
    return [Problem(f"is for images, and the samples of task `{spec.name}` are {shape}", "use shift, noise or mixup")]
