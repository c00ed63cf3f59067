"""`flip`: mirror half of the samples left to right. Only for tasks whose labels stay valid (`TaskSpec.flip`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.augment._protocol import ImageAugmentation
from edgekd.distill.augment.random import choices
from edgekd.errors import Problem
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Flip"]


class Flip(ImageAugmentation):
    """Horizontal flip with probability 0.5."""

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if a mirrored image does not keep its label in this task."""
        problems = super().check(spec)
        if not problems and not spec.flip:
            message = f"a mirrored image does not keep its label in task `{spec.name}`"
            problems.append(Problem(message, "leave flip out, or set the task's own flip if that is wrong"))
        return problems

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the batch, some samples with their columns reversed."""
        import torch

        mirrored = torch.from_numpy(choices(seed, "flip", indices, 2) == 1)
        # mirroring all and choosing is several times faster than gathering the chosen half
        return torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
