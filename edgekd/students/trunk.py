"""Networks of stages: a stem, blocks that halve the image from stage to stage, and what answers behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.students.heads.many import Heads
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Classifier", "MakesBlock", "ManyHeaded", "Sizes", "Trunk", "he_normal"]


class Sizes(NamedTuple):
    """How large a trunk's parts are."""

    channels: int  # of the image
    widths: Sequence[int]  # channels of each stage
    depths: Sequence[int]  # blocks of each stage
    stem_stride: int
    shrink: int = 1  # pixels a side that are averaged into one before the stem


class MakesBlock(Protocol):
    """What turns ``before`` channels into ``after``, at half the size where ``stride`` is 2; stages count from 0.

    A block's last convolution is ``conv2``, and ``norm2`` normalises what that gives before anything is added to it.
    """

    def __call__(self, stage: int, before: int, after: int, stride: int) -> nn.Module:
        """Fresh weights."""
        ...


class Trunk(nn.Module):
    """Stem and blocks."""

    def __init__(self, block: MakesBlock, sizes: Sizes) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(sizes.shrink) if sizes.shrink > 1 else nn.Identity()
        self.stem = Stem(sizes.channels, sizes.widths[0], sizes.stem_stride)
        blocks, width = list[nn.Module](), sizes.widths[0]
        for stage, (after, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
            for index in range(depth):
                blocks.append(block(stage, width, after, 2 if stage > 0 and index == 0 else 1))
                width = after
        self.blocks = nn.Sequential(*blocks)

    def _initialise(self) -> None:
        for part in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(part, nn.Conv2d):
                he_normal(part)


class Classifier(Trunk):
    """Mean over the image and one linear layer behind the trunk. (N, C, H, W) to (N, classes)."""

    def __init__(self, block: MakesBlock, sizes: Sizes, classes: int, last_width: int | None = None) -> None:
        """``last_width`` are the channels of `features`, where these are not the last stage's."""
        super().__init__(block, sizes)
        self.head = nn.Linear(last_width or sizes.widths[-1], classes)
        self._initialise()
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.features(images).mean((2, 3)))
        return answer

    def features(self, images: Tensor) -> Tensor:
        """What the mean is taken of."""
        found: Tensor = self.blocks(self.stem(self.shrink(images)))
        return found


class ManyHeaded(Trunk):
    """Heads behind the trunk. (N, C, H, W) to raw answers by name (`heads.many`)."""

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
        """The last convolution of the trunk."""
        return [self.blocks[-1].get_parameter("conv2.weight")]


class Stem(nn.Module):
    """The first convolution."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))


def he_normal(convolution: nn.Conv2d) -> None:
    """Fresh weights, by what each input reaches (He et al. 2015): of a depthwise one, a single channel."""
    height, width = convolution.kernel_size
    reached = convolution.out_channels // convolution.groups * height * width
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2.0) / math.sqrt(reached))
