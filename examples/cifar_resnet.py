"""ResNet-20 to ResNet-56 for 32 x 32 images (He et al. 2016), in plain PyTorch.

Shortcuts have no weights ("option A"): where a stage doubles its channels, every other pixel is taken and the new
channels are zeros, half of them before and half after the old ones. Use one as a teacher or as a model to shrink,
for example ``module: cifar_resnet.py:resnet56``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(x + y)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels. Takes normalised (N, 3, 32, 32), gives logits (N, classes)."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(Block(16 if n == 0 else 32, 32, 2 if n == 0 else 1) for n in range(blocks)))
        self.layer3 = nn.Sequential(*(Block(32 if n == 0 else 64, 64, 2 if n == 0 else 1) for n in range(blocks)))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20() -> CifarResNet:
    """270 thousand weights."""
    return CifarResNet(3)


def resnet32() -> CifarResNet:
    """464 thousand weights."""
    return CifarResNet(5)


def resnet44() -> CifarResNet:
    """659 thousand weights."""
    return CifarResNet(7)


def resnet56() -> CifarResNet:
    """853 thousand weights."""
    return CifarResNet(9)
