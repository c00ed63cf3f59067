"""Trunk of staged networks: a stem, blocks that halve the resolution from stage to stage, and the output layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.students.heads.many import Heads
from edgekd.tasks._protocol import TaskSpec

__all__ = ["CONVOLUTIONS", "NORMS", "Classifier", "MakesBlock", "ManyHeaded", "Sizes", "Trunk", "he_normal"]


class Sizes(NamedTuple):
    """Sizes of a trunk's parts."""

    channels: int  # of the image
    widths: Sequence[int]  # channels of each stage
    depths: Sequence[int]  # blocks of each stage
    stem_stride: int
    shrink: int = 1  # pixels a side that are averaged into one before the stem
    axes: int = 2  # convolved axes: 2 for images, 1 over time
    stem_kernel: int = 3


CONVOLUTIONS: Mapping[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
"""Convolution classes by the number of convolved axes."""
NORMS: Mapping[int, type[nn.BatchNorm1d | nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
"""Normalisation classes by the number of convolved axes."""
_AVERAGES: Mapping[int, type[nn.AvgPool1d | nn.AvgPool2d]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


class MakesBlock(Protocol):
    """Builder of a block from ``before`` to ``after`` channels, at half the size if ``stride`` is 2; stages from 0.

    A block's last convolution is ``conv2``, and ``norm2`` normalises its result before anything is added to it.
    """

    def __call__(self, stage: int, before: int, after: int, stride: int) -> nn.Module:
        """Build a block with new weights."""
        ...


class Trunk(nn.Module):
    """Stem and blocks."""

    def __init__(self, block: MakesBlock, sizes: Sizes) -> None:
        super().__init__()
        self.shrink = _AVERAGES[sizes.axes](sizes.shrink) if sizes.shrink > 1 else nn.Identity()
        self.stem = Stem(sizes.channels, sizes.widths[0], sizes.stem_stride, sizes.stem_kernel, sizes.axes)
        blocks, width = list[nn.Module](), sizes.widths[0]
        for stage, (after, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
            for index in range(depth):
                blocks.append(block(stage, width, after, 2 if stage > 0 and index == 0 else 1))
                width = after
        self.blocks = nn.Sequential(*blocks)

    def _initialise(self) -> None:
        for part in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(part, (nn.Conv1d, nn.Conv2d)):
                he_normal(part)


class Classifier(Trunk):
    """Trunk with a mean over the image, or over time, and one linear layer: (N, C, ...) to (N, classes)."""

    def __init__(self, block: MakesBlock, sizes: Sizes, classes: int, last_width: int | None = None) -> None:
        """``last_width`` is the number of channels of `features`, if it isn't the last stage's."""
        super().__init__(block, sizes)
        self.head = nn.Linear(last_width or sizes.widths[-1], classes)
        self._initialise()
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images)
        answer: Tensor = self.head(found.mean(tuple(range(2, found.dim()))))
        return answer

    def features(self, images: Tensor) -> Tensor:
        """Return the features before the mean."""
        found: Tensor = self.blocks(self.stem(self.shrink(images)))
        return found


class ManyHeaded(Trunk):
    """Trunk with heads: (N, C, H, W) to raw outputs by name (`heads.many`)."""

    def __init__(self, block: MakesBlock, sizes: Sizes, spec: TaskSpec) -> None:
        super().__init__(block, sizes)
        self._initialise()
        self.ends = [sum(sizes.depths[: stage + 1]) for stage in range(len(sizes.depths))]
        strides = [sizes.shrink * sizes.stem_stride * 2**stage for stage in range(len(sizes.depths))]
        self.heads = Heads(spec, sizes.widths, strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.stem(self.shrink(images))
        stages = []
        for place, block in enumerate(self.blocks):
            features = block(features)
            if place + 1 in self.ends:
                stages.append(features)
        answers: dict[str, Tensor] = self.heads(stages)
        return answers

    def shared_weights(self) -> list[nn.Parameter]:
        """Return the last convolution of the trunk."""
        return [self.blocks[-1].get_parameter("conv2.weight")]


class Stem(nn.Module):
    """First convolution."""

    def __init__(self, before: int, after: int, stride: int, kernel: int = 3, axes: int = 2) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[axes](before, after, kernel, stride, kernel // 2, bias=False)
        self.norm = NORMS[axes](after)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))


def he_normal(convolution: nn.Conv1d | nn.Conv2d) -> None:
    """Initialise by He-normal weights, fan-out (He et al. 2015); for a depthwise convolution of a single channel."""
    reached = convolution.out_channels // convolution.groups * math.prod(convolution.kernel_size)
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2.0) / math.sqrt(reached))
