"""`plain`: a chain of 3 x 3 convolutions, the mean over the image, one linear layer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from edgekd.ir.space import Arch, Axis, Space
from edgekd.records import Record
from edgekd.tasks._protocol import TaskSpec


class Plain(Record):
    """Options of `plain`. Both lists have to ascend."""

    name: ClassVar[str] = "plain"
    inherits: ClassVar[bool] = False

    widths: tuple[PositiveInt, ...] = (8, 16)
    depths: tuple[PositiveInt, ...] = (1, 2)

    def space(self, spec: TaskSpec) -> Space:
        """Every width with every depth."""
        return Space(axes=(Axis(name="depth", choices=self.depths), Axis(name="width", choices=self.widths)))

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """A network with fresh weights from torch's global generator, in eval mode."""
        width, depth = int(arch["width"]), int(arch["depth"])
        return Network(spec.input.shape[0], width, depth, spec.head.classes).eval()


class Network(nn.Module):
    """(N, C, H, W) to (N, classes)."""

    def __init__(self, channels: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in [channels, *[width] * (depth - 1)]:
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))
