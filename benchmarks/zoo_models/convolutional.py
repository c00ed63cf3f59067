"""Convolutional classifiers, as their papers draw them, narrow and shallow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "densenet",
    "ghostnet",
    "mobilenet_v3",
    "repvgg",
    "resnet_groupnorm",
    "resnet_v2",
    "shufflenet",
    "squeezenet",
]


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


def _unit(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _classifier(width: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each convolution (He et al. 2016b, figure 1b)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.shortcut = None if inputs == outputs and stride == 1 else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        short = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(torch.relu(self.norm2(self.conv1(active)))) + short


def resnet_v2() -> nn.Module:
    """He et al. 2016b: every BatchNorm stands before its convolution."""
    blocks = (PreActivation(16, 16, 1), PreActivation(16, 32, 2), PreActivation(32, 48, 2))
    return nn.Sequential(_conv(3, 16), *blocks, nn.BatchNorm2d(48), nn.ReLU(), _classifier(48))


class GroupNormBlock(nn.Module):
    """A basic block with GroupNorm (Wu and He 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), nn.GroupNorm(4, outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs), nn.GroupNorm(4, outputs)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))) + self.shortcut(x))


def resnet_groupnorm() -> nn.Module:
    """As one trains in small batches."""
    blocks = (GroupNormBlock(16, 16, 1), GroupNormBlock(16, 32, 2))
    return nn.Sequential(_conv(3, 16), nn.GroupNorm(4, 16), nn.ReLU(), *blocks, _classifier(32))


class SqueezeExcitation(nn.Module):
    """A scale a channel, computed from the whole map (Hu et al. 2018), with a hard sigmoid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.hardsigmoid(self.expand(torch.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))))
        return x * scale


class InvertedV3(nn.Module):
    """Expand, depthwise, squeeze and excitation, project (Howard et al. 2019, figure 4)."""

    def __init__(self, inputs: int, inner: int, outputs: int, size: int, stride: int, hard: bool) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Hardswish if hard else nn.ReLU
        self.body = nn.Sequential(
            _conv(inputs, inner, 1),
            nn.BatchNorm2d(inner),
            act(),
            _conv(inner, inner, size, stride, groups=inner),
            nn.BatchNorm2d(inner),
            act(),
            SqueezeExcitation(inner),
            _conv(inner, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


def mobilenet_v3() -> nn.Module:
    """Howard et al. 2019, table 2, narrowed."""
    return nn.Sequential(
        _conv(3, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        InvertedV3(16, 16, 16, 3, 2, hard=False),
        InvertedV3(16, 48, 24, 3, 2, hard=False),
        InvertedV3(24, 64, 24, 5, 1, hard=True),
        InvertedV3(24, 64, 40, 5, 2, hard=True),
        _conv(40, 96, 1),
        nn.BatchNorm2d(96),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 64),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


class Shuffled(nn.Module):
    """Split, transform one half, join and shuffle channels (Ma et al. 2018, figure 3c and d)."""

    def __init__(self, width: int, down: bool) -> None:
        super().__init__()
        half = width // 2
        inputs, stride = (half, 2) if down else (half, 1)
        self.down = down
        self.right = nn.Sequential(
            _unit(inputs, half, 1),
            _conv(half, half, 3, stride, groups=half),
            nn.BatchNorm2d(half),
            _unit(half, half, 1),
        )
        self.left = (
            nn.Sequential(_conv(inputs, inputs, 3, 2, groups=inputs), nn.BatchNorm2d(inputs), _unit(inputs, half, 1))
            if down
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            left, right = self.left(x), self.right(x)
        else:
            left, right = x.chunk(2, dim=1)
            right = self.right(right)
        both = torch.cat((left, right), dim=1)
        batch, channels, height, width = both.shape
        return both.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet() -> nn.Module:
    """Ma et al. 2018, table 5, narrowed."""
    return nn.Sequential(
        _unit(3, 16), Shuffled(32, True), Shuffled(32, False), Shuffled(64, True), Shuffled(64, False), _classifier(64)
    )


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, convolution; what it makes is joined to what it took (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), _conv(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))), dim=1)


def densenet() -> nn.Module:
    """Huang et al. 2017: growth 8, two blocks of three layers."""
    layers: list[nn.Module] = [_conv(3, 16)]
    width = 16
    for last in (False, True):
        for _ in range(3):
            layers.append(DenseLayer(width, 8))
            width += 8
        if not last:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), _conv(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), _classifier(width))


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 (Iandola et al. 2016)."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.narrow, self.wide = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat((torch.relu(self.narrow(x)), torch.relu(self.wide(x))), dim=1)


def squeezenet() -> nn.Module:
    """Iandola et al. 2016: pools with a ceiling, and a convolution as the classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(16, 8, 16),
        Fire(32, 8, 16),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(32, 12, 24),
        nn.Dropout(0.5),
        nn.Conv2d(48, 10, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Ghost(nn.Module):
    """Half of the channels by a convolution, the others from those by a cheap one (Han et al. 2020, figure 2)."""

    def __init__(self, inputs: int, outputs: int, active: bool) -> None:
        super().__init__()
        half = outputs // 2
        end: type[nn.Module] = nn.ReLU if active else nn.Identity
        self.primary = nn.Sequential(_conv(inputs, half, 1), nn.BatchNorm2d(half), end())
        self.cheap = nn.Sequential(_conv(half, half, 3, groups=half), nn.BatchNorm2d(half), end())

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat((first, self.cheap(first)), dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules, with a depthwise convolution between them where the map becomes smaller."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        between = [_conv(inner, inner, 3, 2, groups=inner), nn.BatchNorm2d(inner)] if stride == 2 else []
        self.body = nn.Sequential(Ghost(inputs, inner, True), *between, Ghost(inner, outputs, False))
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                _conv(inputs, inputs, 3, stride, groups=inputs),
                nn.BatchNorm2d(inputs),
                _conv(inputs, outputs, 1),
                nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def ghostnet() -> nn.Module:
    """Han et al. 2020, narrowed."""
    blocks = (GhostBottleneck(16, 32, 16, 1), GhostBottleneck(16, 48, 24, 2), GhostBottleneck(24, 64, 40, 2))
    return nn.Sequential(_unit(3, 16), *blocks, _classifier(40))


class RepBlock(nn.Module):
    """3x3, 1x1 and identity, each with its BatchNorm, added (Ding et al. 2021), as it is trained."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(_conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs))
        self.narrow = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        added = self.wide(x) + self.narrow(x)
        return torch.relu(added if self.same is None else added + self.same(x))


def repvgg() -> nn.Module:
    """Ding et al. 2021, before its branches are merged."""
    blocks = (RepBlock(3, 16, 1), RepBlock(16, 32, 2), RepBlock(32, 32, 1), RepBlock(32, 48, 2))
    return nn.Sequential(*blocks, _classifier(48))
