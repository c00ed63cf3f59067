"""Several views one after the other, and how a stage's ``augment`` options become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, SerializeAsAny

from edgekd.distill.augment._protocol import PixelView
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.flip import Flip
from edgekd.errors import Problem
from edgekd.records import Record
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Augment", "Chain"]


class Chain(PixelView):
    """Views in order, all under one seed; each draws from a stream of its own."""

    views: Annotated[tuple[SerializeAsAny[PixelView], ...], Field(min_length=1)]

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """The last view of ... the first view of the batch."""
        for view in self.views:
            batch = view.pixels(batch, indices, seed)
        return batch


class Augment(Record):
    """What a recipe says: ``augment: {crop: 4, flip: true}``.

    ``crop`` is a border in pixels (0: none; left out: an eighth of the smaller side). ``flip`` left out follows the
    task.
    """

    crop: NonNegativeInt | None = None
    flip: bool | None = None

    def check(self, spec: TaskSpec) -> list[Problem]:
        """What can't be done to this task's samples."""
        problems = []
        _, height, width = spec.input.shape
        if self.crop is not None and self.crop >= min(height, width):
            message = f"augment.crop: {self.crop} would crop {height} x {width} images to nothing"
            problems.append(Problem(message, f"use less than {min(height, width)}; about an eighth of it is usual"))
        if self.flip and not spec.flip:
            message = f"augment.flip: a mirrored image does not keep its label in task `{spec.name}`"
            problems.append(Problem(message, "leave flip out, or set the task's own flip if that is wrong"))
        return problems

    def view(self, spec: TaskSpec) -> PixelView | None:
        """The view of this task's samples; None where nothing is done to them."""
        crop = min(spec.input.shape[1:]) // 8 if self.crop is None else self.crop
        flip = spec.flip if self.flip is None else self.flip
        views: list[PixelView] = []
        if flip:
            views.append(Flip())
        if crop:
            views.append(PadCrop(pad=crop))
        return Chain(views=tuple(views)) if len(views) > 1 else views[0] if views else None
