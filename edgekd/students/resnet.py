"""Residual networks of basic blocks with dense 3x3 convolutions (He et al. 2016, "Deep residual learning", CIFAR form).

Axes are those of `staged`. Shortcuts that change shape are 1x1 convolutions (option B), so widths are independent of
each other. Widths 16, 32, 64 and depths 1, 1, 1 are the ResNet-8 of MLPerf Tiny; depths 3, 3, 3 are ResNet-20.

With ``space: {width: [8, 64], depth: [1, 3]}`` and three stages there are 13,824 archs. ``widths`` and ``depths`` say
the same stage by stage: ``space: {widths: [16, 32, 64], depths: [1, 1, 1]}`` is the ResNet-8 alone.

Tasks with several heads, or with one that says where things are, get the same stem and blocks, and `heads` behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Space
from edgekd.students.staged import Staged
from edgekd.students.trunk import Classifier, ManyHeaded, Sizes
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from edgekd.students.pieces import Piece
    from edgekd.students.relaxed_resnet import RelaxedNetwork

__all__ = ["Block", "Network", "ResNet"]


class ResNet(Staged):
    """The family ``resnet``."""

    name: ClassVar[str] = "resnet"

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """A network with He-normal weights from torch's global generator, in eval mode."""
        sizes = self._sizes(arch, spec)
        return (Network(sizes, spec.head.classes) if spec.plain else ManyHeaded(_block, sizes, spec)).eval()

    def relaxed(self, spec: TaskSpec) -> RelaxedNetwork:
        """All widths and depths in one.

        Raises ConfigurationError where the image or the stem's stride has a choice, or there are several heads.
        """
        if not spec.plain:
            raise ConfigurationError.one(
                f"the choice of an arch is trained for one classification head, and task `{spec.name}` has others",
                "leave search.by out: archs are then tried side by side",
            )
        from edgekd.students.relaxed_resnet import RelaxedNetwork

        def plain(arch: Arch) -> Network:
            network = self.build(arch, spec)
            assert isinstance(network, Network), "of one head, as looked at above"
            return network

        return RelaxedNetwork(self._relaxable(spec).axes, plain)

    def pieces(self, spec: TaskSpec) -> Sequence[Piece]:
        """What stem, blocks and head cost. Raises as `relaxed` does."""
        from edgekd.students.relaxed_resnet import resnet_pieces

        axes, (channels, height, width) = self._relaxable(spec).axes, spec.input.shape
        shrink = height // self._resolutions(spec)[0]
        return resnet_pieces(axes, channels, spec.head.classes, (height, width), shrink, self.space_.stem_stride[0])

    def _relaxable(self, spec: TaskSpec) -> Space:
        space = self.space(spec)
        fixed = [axis.name for axis in space.axes if axis.name in ("resolution", "stem_stride")]
        if fixed:
            raise ConfigurationError.one(
                f"{' and '.join(fixed)} can't be relaxed: two images, or strides, share no layer's work",
                f"give student.space.{fixed[0]} one value, or search by sampling",
            )
        return space


class Network(Classifier):
    """(N, C, H, W) to (N, classes)."""

    def __init__(self, sizes: Sizes, classes: int) -> None:
        super().__init__(_block, sizes, classes)


class Block(nn.Module):
    """Two convolutions and a way around them."""

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


class Shortcut(nn.Module):
    """A way around that changes the shape: option B of the paper."""

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
