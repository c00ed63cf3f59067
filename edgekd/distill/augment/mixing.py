"""Base of augmentations that mix each sample with a partner and mix their targets (mixup, cutmix).

The partner is drawn from all samples, and goes through the same earlier augmentations under the same seed.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny

from edgekd.distill.augment._protocol import Augmentation, PixelAugmentation
from edgekd.distill.augment.random import choices
from edgekd.errors import Problem
from edgekd.tasks._protocol import HeadKind, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mixed", "MixingAugmentation", "partners"]


class MixingAugmentation(Augmentation):
    """Augmentation that mixes samples.

    On its own it mixes raw samples; in a recipe it comes after all other augmentations.
    """

    mixable: ClassVar[tuple[HeadKind, ...]] = ("multilabel", "regression")  # besides one classification head

    @abstractmethod
    def shares(self, indices: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """Return the share (N,) of the sample itself in the mixture, 0 to 1; the rest is its partner's."""

    @abstractmethod
    def mixed(self, own: Tensor, other: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Mix samples with their partners (N, ...) in these shares; the result is float32, or their dtype."""

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if the task has heads whose targets can't be mixed."""
        problems = super().check(spec)
        odd = [] if spec.plain else [head for head in spec.heads if head.kind not in self.mixable]
        if odd:
            message = f"mixes what two samples are, and head `{odd[0].name}` of task `{spec.name}` is {odd[0].kind}"
            known = " and ".join(self.mixable)
            problems.append(Problem(message, f"leave it out: it is for one classification head, or for {known}"))
        return problems

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Mix raw samples, without earlier augmentations; see `View`."""
        return Mixed(ways=(self,))(inputs, indices, seed)

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Return class shares (N, classes) float32."""
        return Mixed(ways=(self,)).targets(labels, indices, seed, classes)


class Mixed(Augmentation):
    """Mixing after the augmentations ``earlier``; with several ``ways``, one of them is drawn for each sample."""

    earlier: SerializeAsAny[PixelAugmentation] | None = None
    ways: Annotated[tuple[SerializeAsAny[MixingAugmentation], ...], Field(min_length=1)]

    def identity(self) -> dict[str, Any]:
        """Return the identities of the parts, in order."""
        earlier = None if self.earlier is None else self.earlier.identity()
        options = {"earlier": earlier, "ways": [way.identity() for way in self.ways]}
        return {**super().identity(), "options": options}

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return mixtures (N, ...): float32, or the inputs' dtype if the only way to mix keeps it."""
        import torch

        own = self._seen(inputs, indices, seed)
        other = self._seen(inputs, partners(seed, indices, len(inputs)), seed)
        if len(self.ways) == 1:
            return self.ways[0].mixed(own, other, indices, seed)
        seen = torch.empty(own.shape, dtype=torch.float32)  # for any draw, so that all batches have one dtype
        for way, rows in self._drawn(indices, seed):
            at = torch.from_numpy(rows)
            seen[at] = way.mixed(own[at], other[at], indices[rows], seed).float()
        return seen

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Return class shares (N, classes) float32, which sum to 1."""
        import torch

        both = np.stack((indices, partners(seed, indices, len(labels))))
        return self._shared(torch.nn.functional.one_hot(labels[torch.from_numpy(both)], classes), indices, seed)

    def blended(self, values: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Mix rows of ``values`` (all samples, C) like these samples: (N, C) float32, NaN if either row is NaN."""
        import torch

        both = np.stack((indices, partners(seed, indices, len(values))))
        return self._shared(values[torch.from_numpy(both)], indices, seed)

    def _shared(self, both: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        import torch

        own = np.empty(len(indices), np.float32)
        for way, rows in self._drawn(indices, seed):
            own[rows] = way.shares(indices[rows], seed)
        share, (first, second) = torch.from_numpy(own)[:, None], both.float().unbind()
        return first * share + second * (1 - share)

    def _seen(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        import torch

        if self.earlier is None:
            return inputs.index_select(0, torch.from_numpy(indices))
        return self.earlier(inputs, indices, seed)

    def _drawn(self, indices: NDArray[np.int64], seed: int) -> list[tuple[MixingAugmentation, NDArray[np.int64]]]:
        """Return each way to mix with the rows of the batch that use it."""
        drawn = choices(seed, "mixed.way", indices, len(self.ways))
        rows = [np.flatnonzero(drawn == number) for number in range(len(self.ways))]
        return [(way, at) for way, at in zip(self.ways, rows, strict=True) if len(at)]


def partners(seed: int, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the partner (N,) of each sample, drawn from ``count`` samples; occasionally the sample itself."""
    return choices(seed, "mixed.partner", indices, count)
