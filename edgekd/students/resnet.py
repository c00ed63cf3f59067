"""ResNet: residual networks of basic blocks with dense 3x3 convolutions (He et al.

2016, "Deep residual learning", CIFAR form).

Axes are those of `staged`. Shortcuts that change shape are 1x1 convolutions (option B), so widths are independent of
each other. Widths 16, 32, 64 and depths 1, 1, 1 are the ResNet-8 of MLPerf Tiny; depths 3, 3, 3 are ResNet-20.

With ``space: {width: [8, 64], depth: [1, 3]}`` and three stages there are 13,824 archs. ``widths`` and ``depths`` give
ranges stage by stage: ``space: {widths: [16, 32, 64], depths: [1, 1, 1]}`` is the ResNet-8 alone.

``space: {block: [basic, separable]}`` adds a categorical axis for each stage, ``block1``, ``block2``, ...: a separable
block has a depthwise 3x3 and a 1x1 convolution instead of each dense 3x3 (Howard et al. 2017, "MobileNets", arXiv
1704.04861): an eighth of the weights and multiply-adds at wide stages. Whether it is faster depends on the device.

Tasks with several heads, or with a dense one (segmentation, detection), get the same stem and blocks, followed by
`heads`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.ir.space import Arch, Axis
from edgekd.students.staged import StagedSpace, SupernetStaged
from edgekd.students.trunk import Classifier, MakesBlock, ManyHeaded, Sizes
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Block", "ResNet", "ResNetModule", "ResNetSpace", "SeparableBlock"]

BlockKind = Literal["separable", "basic"]
"""Kinds of blocks in the order of the axis, the costliest last."""


class ResNetSpace(StagedSpace):
    """Search space. ``block``: the kinds of blocks that each stage may have; default basic only."""

    added: ClassVar[frozenset[str]] = frozenset({"block"})

    block: Annotated[
        tuple[BlockKind, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
    ] = ()


class ResNet(SupernetStaged):
    """Family ``resnet``."""

    name: ClassVar[str] = "resnet"

    space_: ResNetSpace = Field(default=ResNetSpace(), alias="space")

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build a network with He-normal weights from torch's global generator, in eval mode."""
        sizes, picks = self._sizes(arch, spec), dict(arch.choices)
        kinds = [picks.get(f"block{stage}", self._kinds()[0]) for stage in self._stages()]

        def block(stage: int, before: int, after: int, stride: int) -> nn.Module:
            return (Block if kinds[stage] == "basic" else SeparableBlock)(before, after, stride)

        if spec.plain:
            return ResNetModule(sizes, spec.head.classes, block).eval()
        return ManyHeaded(block, sizes, spec).eval()

    def _own_axes(self) -> list[Axis]:
        kinds = self._kinds()
        if len(kinds) == 1:
            return []
        return [Axis(name=f"block{s}", choices=kinds, when=self._exists(s)) for s in self._stages()]

    def _kinds(self) -> tuple[BlockKind, ...]:
        """Return the kinds of blocks in the order of the axis."""
        return tuple(kind for kind in get_args(BlockKind) if kind in (self.space_.block or ("basic",)))


class ResNetModule(Classifier):
    """Classifier: (N, C, H, W) to (N, classes)."""

    def __init__(self, sizes: Sizes, classes: int, block: MakesBlock | None = None) -> None:
        """``block``: default basic blocks."""
        super().__init__(block or _block, sizes, classes)


class Block(nn.Module):
    """Basic residual block: two convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else Shortcut(before, after, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(features)))
        return F.relu(torch.add(self.norm2(self.conv2(inner)), self.shortcut(features)))


class SeparableBlock(nn.Module):
    """Separable residual block: two depthwise 3x3 convolutions, each followed by a 1x1 one, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.depthwise1 = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        self.depthwise_norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.depthwise2 = nn.Conv2d(after, after, 3, 1, 1, groups=after, bias=False)
        self.depthwise_norm2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else Shortcut(before, after, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.depthwise_norm1(self.depthwise1(features)))
        inner = F.relu(self.norm1(self.conv1(inner)))
        inner = F.relu(self.depthwise_norm2(self.depthwise2(inner)))
        return F.relu(torch.add(self.norm2(self.conv2(inner)), self.shortcut(features)))


class Shortcut(nn.Module):
    """Shortcut that changes the shape: option B of the paper."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, features: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.conv(features))
        return answer


def _block(stage: int, before: int, after: int, stride: int) -> Block:
    del stage
    return Block(before, after, stride)
