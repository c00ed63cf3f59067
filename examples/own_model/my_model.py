"""A model of one's own, in plain PyTorch: edgekd only asks for a function without arguments that returns it."""

from __future__ import annotations

from torch import nn


def build() -> nn.Module:
    """Takes normalised (N, 1, 8, 8), gives logits (N, 10)."""
    return nn.Sequential(
        *_layer(1, 32, stride=1),
        *_layer(32, 32, stride=1),
        *_layer(32, 64, stride=2),
        *_layer(64, 64, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
