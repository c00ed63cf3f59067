"""Views that mix each sample with another one, and share its target with the other's label.

The partner is drawn for each sample from all of them, and seen through the same earlier views under the same seed.
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
    """One way to mix. By itself it mixes raw samples; in a recipe it comes after all other views."""

    mixable: ClassVar[tuple[HeadKind, ...]] = ("multilabel", "regression")  # besides one classification head

    @abstractmethod
    def shares(self, indices: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """How much of the mixture is the sample itself (N,), 0 to 1; the rest is its partner."""

    @abstractmethod
    def mixed(self, own: Tensor, other: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Samples and their partners (N, ...) put together in these shares: float32, or their dtype."""

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Tasks whose answers can't be of two samples at once."""
        problems = super().check(spec)
        odd = [] if spec.plain else [head for head in spec.heads if head.kind not in self.mixable]
        if odd:
            message = f"mixes what two samples are, and head `{odd[0].name}` of task `{spec.name}` is {odd[0].kind}"
            known = " and ".join(self.mixable)
            problems.append(Problem(message, f"leave it out: it is for one classification head, or for {known}"))
        return problems

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """As in `View`, with no earlier view."""
        return Mixed(ways=(self,))(inputs, indices, seed)

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Shares of the classes (N, classes) float32."""
        return Mixed(ways=(self,)).targets(labels, indices, seed, classes)


class Mixed(Augmentation):
    """What ``earlier`` shows, mixed in one of the ``ways``: by a draw for each sample, where there are several."""

    earlier: SerializeAsAny[PixelAugmentation] | None = None
    ways: Annotated[tuple[SerializeAsAny[MixingAugmentation], ...], Field(min_length=1)]

    def identity(self) -> dict[str, Any]:
        """Of its parts, in order."""
        earlier = None if self.earlier is None else self.earlier.identity()
        options = {"earlier": earlier, "ways": [way.identity() for way in self.ways]}
        return {**super().identity(), "options": options}

    def __call__(self, inputs: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Mixtures (N, ...): float32, or the inputs' dtype where the only way to mix keeps it."""
        import torch

        own = self._seen(inputs, indices, seed)
        other = self._seen(inputs, partners(seed, indices, len(inputs)), seed)
        if len(self.ways) == 1:
            return self.ways[0].mixed(own, other, indices, seed)
        seen = torch.empty(own.shape, dtype=torch.float32)  # whatever the draw, so that all batches have one dtype
        for way, rows in self._drawn(indices, seed):
            at = torch.from_numpy(rows)
            seen[at] = way.mixed(own[at], other[at], indices[rows], seed).float()
        return seen

    def targets(self, labels: Tensor, indices: NDArray[np.int64], seed: int, classes: int) -> Tensor:
        """Shares of the classes (N, classes) float32, which add up to 1."""
        import torch

        both = np.stack((indices, partners(seed, indices, len(labels))))
        return self._shared(torch.nn.functional.one_hot(labels[torch.from_numpy(both)], classes), indices, seed)

    def blended(self, values: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """What all samples have (N, C), mixed as these samples are: float32, NaN where either has NaN."""
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
        """Each way with its rows of the batch."""
        drawn = choices(seed, "mixed.way", indices, len(self.ways))
        rows = [np.flatnonzero(drawn == number) for number in range(len(self.ways))]
        return [(way, at) for way, at in zip(self.ways, rows, strict=True) if len(at)]


def partners(seed: int, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Which of ``count`` samples each sample is mixed with (N,); now and then itself."""
    return choices(seed, "mixed.partner", indices, count)
