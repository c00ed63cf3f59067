"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), as one writes one's own model: `build` takes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["MobileNetV2", "build", "small"]

CLASSES = 12
# expansion, channels, blocks, stride of the first: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(inner, outer, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]


class Block(nn.Module):
    """An inverted residual: wide inside, narrow and without an activation at its end."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        widen = [*_conv(inner, wide), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(*widen, *_conv(wide, wide, 3, stride, wide), nn.ReLU6(), *_conv(wide, outer))
        self.residual = stride == 1 and inner == outer

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the stage's channels and half the size at most."""
        return images + self.body(images) if self.residual else self.body(images)


class MobileNetV2(nn.Module):
    """Normalised images (N, 3, H, W) in, logits (N, classes) out. ``last`` is the width before the head."""

    def __init__(
        self, width: float, last: int, stages: Sequence[tuple[int, int, int, int]] = _STAGES, classes: int = CLASSES
    ) -> None:
        super().__init__()
        inner = _rounded(32 * width)
        layers = [*_conv(3, inner, 3, 2), nn.ReLU6()]
        for expansion, channels, blocks, stride in stages:
            for number in range(blocks):
                outer = _rounded(channels * width)
                layers.append(Block(inner, outer, 1 if number else stride, expansion))
                inner = outer
        self.features = nn.Sequential(*layers, *_conv(inner, last), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        features: Tensor = self.pool(self.features(images))
        logits: Tensor = self.head(features.flatten(1))
        return logits


def _rounded(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


def build() -> MobileNetV2:
    """At width 1.4: 4.3 million weights and 12 classes, to be pruned."""
    return MobileNetV2(1.4, 1792)


def small() -> MobileNetV2:
    """What one would draw by hand for a small device: about 75,000 weights."""
    return MobileNetV2(0.5, 160, ((1, 16, 1, 1), (6, 24, 2, 2), (6, 48, 3, 2), (6, 64, 3, 2)))
