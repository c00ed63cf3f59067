"""MobileNetV2, networks of inverted residuals: 1x1 expansion, depthwise convolution, linear 1x1 projection (Sandler et
al. 2018, "MobileNetV2", arXiv 1801.04381).

Axes are those of `staged`, and ``expansion1``, ``expansion2``, ...: inner width of a stage's blocks over their input's.
With 1 the first convolution is left out. Widths are those between blocks. After the blocks a 1x1 convolution widens
four times, as from 320 to 1280 in the paper; the stem, unlike there, is as wide as the first stage and ends in a ReLU.

Depthwise convolutions compute less for each byte they move than dense ones: whether fewer multiply-adds are faster
depends on the device. For feature losses, the last map of a stage is the expansion in the next stage's first block, or
without expansion the last block's output.

Tasks with several heads, or with a dense one (segmentation, detection), get the same stem and blocks, followed by
`heads`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.ir.space import Arch, Axis
from edgekd.students.staged import Range, Staged, StagedSpace, SupernetStaged, at_most
from edgekd.students.trunk import Classifier, MakesBlock, ManyHeaded, Sizes, he_normal
from edgekd.tasks._protocol import TaskSpec

__all__ = ["MobileNet", "MobileNetSpace"]

_WIDER_AT_LAST = 4
Expansion = Annotated[Range, at_most(64, "times as wide")]


class MobileNetSpace(StagedSpace):
    """Search space.

    ``expansion`` has steps of 1 unless a third number is given; ``expansions`` has one entry for each stage.
    """

    expansion: Expansion = (3, 6, 3)
    expansions: Annotated[tuple[Expansion, ...], Field(min_length=1)] | None = None


class MobileNet(SupernetStaged):
    """Family ``mobilenet``."""

    name: ClassVar[str] = "mobilenet"
    one_a_stage: ClassVar[tuple[str, ...]] = (*Staged.one_a_stage, "expansions")

    space_: MobileNetSpace = Field(default=MobileNetSpace(), alias="space")

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build a network with He-normal weights from torch's global generator, in eval mode."""
        expansions, sizes = self._each("expansion", arch), self._sizes(arch, spec)

        def block(stage: int, before: int, after: int, stride: int) -> InvertedResidual:
            return InvertedResidual(before, after, stride, expansions[stage])

        if spec.plain:
            return MobileNetModule(block, sizes, spec.head.classes).eval()
        return ManyHeaded(block, sizes, spec).eval()

    def _own_axes(self) -> list[Axis]:
        return self._axes("expansion", self.space_.expansions or (self.space_.expansion,) * self.stages, 1)


class MobileNetModule(Classifier):
    """Classifier with one more convolution before the mean over the image: (N, C, H, W) to (N, classes)."""

    def __init__(self, block: MakesBlock, sizes: Sizes, classes: int) -> None:
        width = sizes.widths[-1]
        super().__init__(block, sizes, classes, _WIDER_AT_LAST * width)
        self.last = Widen(width, _WIDER_AT_LAST * width)
        he_normal(self.last.conv)

    def features(self, images: Tensor) -> Tensor:
        """Return the features before the mean."""
        found: Tensor = self.last(super().features(images))
        return found


class InvertedResidual(nn.Module):
    """Inverted residual block: wide inside, narrow at both ends; the input is added if it has the output's shape."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = expansion * before
        self.widen = Widen(before, inside) if expansion > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, after, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.adds = stride == 1 and before == after

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu6(self.norm1(self.conv1(self.widen(features))))
        answer: Tensor = self.norm2(self.conv2(inner))
        return torch.add(answer, features) if self.adds else answer


class Widen(nn.Module):
    """1x1 convolution to more channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu6(self.norm(self.conv(features)))
