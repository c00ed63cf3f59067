"""Models that answer for every pixel: (N, classes, h, w)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["dilated", "fpn", "unet"]


def _unit(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Down by pooling, up by transposed convolutions, joined with what was there (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(_unit(3, 8), _unit(8, 8))
        self.down2 = nn.Sequential(_unit(8, 16), _unit(16, 16))
        self.deepest = nn.Sequential(_unit(16, 32), _unit(32, 32))
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.join2, self.join1 = _unit(32, 16), _unit(16, 8)
        self.classes = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        deepest = self.deepest(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat((self.up2(deepest), second), dim=1))
        return self.classes(self.join1(torch.cat((self.up1(x), first), dim=1)))


class Pyramid(nn.Module):
    """Parallel dilated convolutions and the mean of the map (Chen et al. 2017, figure 5)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_unit(inputs, outputs, dilation=rate) for rate in (1, 2, 4)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        self.project = nn.Conv2d(4 * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = functional.interpolate(self.whole(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat([branch(x) for branch in self.branches] + [whole], dim=1))


def dilated() -> nn.Module:
    """DeepLabV3 on a stride of 4: the last stage is dilated in place of strided."""
    return nn.Sequential(
        _unit(3, 16, 2), _unit(16, 24, 2), _unit(24, 24, dilation=2), Pyramid(24, 16), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )


class FPN(nn.Module):
    """Top-down with lateral 1x1 convolutions, nearest upsampling, and one head on the finest map (Lin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 32)
        self.stem = _unit(3, 16, 2)
        self.stages = nn.ModuleList([_unit(16, 16, 2), _unit(16, 24, 2), _unit(24, 32, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(width, 16, 1) for width in widths])
        self.smooth = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1) for _ in widths])
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = self.lateral[2](maps[2])
        finer = [self.smooth[2](merged)]
        for level in (1, 0):
            merged = self.lateral[level](maps[level]) + functional.interpolate(merged, scale_factor=2, mode="nearest")
            finer.append(self.smooth[level](merged))
        return self.head(torch.relu(finer[-1]))


def unet() -> nn.Module:
    """Ronneberger et al. 2015, two levels."""
    return UNet()


def fpn() -> nn.Module:
    """Lin et al. 2017, three levels."""
    return FPN()
