"""The bases of every view that ``augment`` names: a frozen record of its options that is a `View`.

`PixelAugmentation` shows one sample at a time, `ImageAugmentation` those that are pictures; a view that mixes samples
is a `MixingAugmentation` (mixing.py). Whatever they draw comes from random.py, so it depends on (seed, sample) alone.
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

__all__ = ["Augmentation", "Bound", "ImageAugmentation", "PixelAugmentation", "is_image", "only_images"]


class Augmentation(Record):
    """Base of everything that can be written under ``augment``."""

    shorthand: ClassVar[str | None] = None  # the field that a bare value stands for: `rotate: 15`
    moves: ClassVar[bool] = True  # whether pixels may be seen in other places: numbers don't follow there
    version: ClassVar[int] = 1  # raised when the same options show other pixels

    def identity(self) -> dict[str, Any]:
        """Everything that decides what is shown, besides the seed and the samples. Can be written as JSON."""
        kind = type(self)
        ours = kind.__module__.startswith("edgekd.")
        name = kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"
        return {"view": name, "version": kind.version, "options": self.model_dump(mode="json")}

    def digest(self) -> Digest:
        """Identity of the transformation, without its seed."""
        return digest_json(self.identity())

    def check(self, spec: TaskSpec) -> list[Problem]:
        """What can't be done to this task's samples. Whoever reports it says the view's name."""
        del spec
        return []

    def bound(self, spec: TaskSpec) -> Self:
        """The view of this task's samples: itself, if it needs to know nothing about them."""
        del spec
        return self

    @abstractmethod
    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """The samples ``indices`` of ``inputs`` (all raw samples) as they are seen: (N, C, H, W) or (N, C, L)."""

    @abstractmethod
    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """What they are to be taken for: labels (N,) int64, or shares of the classes (N, classes) float32."""


class Bound(Augmentation):
    """A view that has to know the task's input: the range of raw values, or an image's size."""

    _input: InputSpec | None = PrivateAttr(default=None)

    def bound(self, spec: TaskSpec) -> Self:
        """A copy that knows the input."""
        copy = self.model_copy()
        copy._input = spec.input
        return copy

    @property
    def input(self) -> InputSpec:
        """The task's input. Raises ValueError before it is known."""
        if self._input is None:
            raise ValueError(f"{type(self).__name__} is not bound to a task: use bound(spec)")
        return self._input

    def identity(self) -> dict[str, Any]:
        """The input's part in it as well, once it is known."""
        known = None if self._input is None else self._input.model_dump(mode="json", include={"shape", "raw_range"})
        return {**super().identity(), "input": known}


class PixelAugmentation(Augmentation):
    """A view of one sample at a time, which keeps its label."""

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """The samples ``indices`` of ``inputs`` (all raw samples) as they are seen: (N, C, H, W) or (N, C, L)."""
        import torch

        return self.pixels(inputs.index_select(0, torch.from_numpy(indices)), indices, seed)

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Their labels (N,) int64."""
        import torch

        del seed, classes
        return labels.index_select(0, torch.from_numpy(indices))

    @abstractmethod
    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """The view, in the batch's own shape and dtype. ``batch`` lies on the CPU and is not changed."""


class ImageAugmentation(PixelAugmentation):
    """A view that means something for pictures only."""

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Samples that are no images."""
        return [*only_images(spec), *super().check(spec)]


def is_image(spec: TaskSpec) -> bool:
    """Whether samples have rows and columns. A spectrogram has them too."""
    return len(spec.input.shape) == 3 and spec.input.shape[1] > 1


def only_images(spec: TaskSpec) -> list[Problem]:
    """A problem where the task's samples are no images."""
    if is_image(spec):
        return []
    shape = " x ".join(map(str, spec.input.shape))
    return [Problem(f"is for images, and the samples of task `{spec.name}` are {shape}", "use shift, noise or mixup")]
