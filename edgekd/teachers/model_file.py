"""Base of teachers in a model file of another runtime: layout, raw or normalised input, probabilities."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.code_references import ExistingFile
from edgekd.errors import ConfigurationError
from edgekd.records import digest_file
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.foreign import ForeignTeacher

__all__ = ["ModelFile", "check_shape"]

_LEAST = 1e-12  # of a probability whose logarithm is taken


class ModelFile(ForeignTeacher):
    """Options of a model file. ``input`` and ``answers`` as for `onnx`; ``layout`` is the file's own."""

    file: ExistingFile
    input: Literal["normalised", "raw"] = "normalised"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    answers: Literal["logits", "probabilities"] = "logits"

    @property
    def name(self) -> str:
        """File name without suffix."""
        return self.file.stem

    def bound(self, spec: TaskSpec) -> Self:
        """Return the teacher with the task's normalisation if it needs one and has none of its own."""
        return self if self.input == "raw" else super().bound(spec)

    def prepared(self, batch: Tensor) -> Tensor:
        """Return the batch raw or normalised, and resized: (N, C, H, W)."""
        return self._resized(batch.float()) if self.input == "raw" else super().prepared(batch)

    def _answer(self, views: Tensor) -> Tensor:
        if self.layout == "nhwc":
            views = views.permute(0, 2, 3, 1)
        found = torch.from_numpy(self._run(views.contiguous().numpy()).astype(np.float32))
        return found.clamp_min(_LEAST).log() if self.answers == "probabilities" else found

    @abstractmethod
    def _run(self, fed: NDArray[np.float32]) -> NDArray[Any]:
        """Run the file on views in its layout, and return real numbers."""

    def _identity(self) -> Any:
        return digest_file(self.file)

    def _feeding(self) -> Any:
        return [*super()._feeding(), self.input, self.layout, self.answers]


def check_shape(teacher: ModelFile, takes: tuple[int | None, ...], given: tuple[int, ...]) -> None:
    """Raise ConfigurationError if images don't fit. Shapes without batch, in the file's layout, None for any size."""

    def fits(wanted: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
        return len(wanted) == len(found) and all(a in (None, b) for a, b in zip(wanted, found, strict=True))

    if fits(takes, given):
        return
    last = teacher.layout == "nhwc"
    turned = (given[2], given[0], given[1]) if last else (given[1], given[2], given[0])
    channels, size = (takes[2:], takes[:2]) if last else (takes[:1], takes[1:])
    if fits(takes, turned):
        remedy = f"write `layout: {'nchw' if last else 'nhwc'}`"
    elif len(takes) == 3 and fits(channels, given[2:] if last else given[:1]):
        remedy = f"write `resize: [{', '.join(str(side or 'any') for side in size)}]`"
    else:
        remedy = "give a teacher for images of as many channels"
    shown = " x ".join(str(side or "any") for side in takes)
    raise ConfigurationError.one(
        f"teacher `{teacher.name}` takes {shown} ({teacher.layout}), and is given {' x '.join(map(str, given))}", remedy
    )
