"""Discriminator of real and generated images: strided convolutions with spectral normalisation (Miyato et al.

2018, "Spectral normalization for generative adversarial networks", arXiv 1802.05957).

A minibatch standard deviation channel shows it how much the images of a batch differ (Karras et al. 2018, "Progressive
growing of GANs", arXiv 1710.10196): without it, on a hundred digits, the generator soon drew one image whatever the
noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from edgekd.tasks._protocol import InputSpec

__all__ = ["Discriminator"]

_END = 4  # pixels a side that are judged together


class Discriminator(nn.Module):
    """Maps images (N, C, H, W), about -1..1, to scores (N,), above 0 for real.

    ``width``: channels of the first layer.
    """

    def __init__(self, spec: InputSpec, width: int = 32) -> None:
        super().__init__()
        channels, height, side = spec.shape
        halvings = max(1, round(math.log2(min(height, side) / _END)))
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, width, 3, padding=1)), nn.LeakyReLU(0.2)]
        for number in range(halvings):
            before, after = width if number == 0 else 2 * width, 2 * width
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers += [_Spread(), spectral_norm(nn.Conv2d(2 * width + 1, 2 * width, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(2 * width, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.layers(images).sum((2, 3)))
        return scores[:, 0]


class _Spread(nn.Module):
    """Append a constant channel: the mean standard deviation over the batch."""

    def forward(self, features: Tensor) -> Tensor:
        spread = (features.var(0, correction=0) + 1e-8).sqrt().mean()
        count, _, height, width = features.shape
        return torch.cat([features, spread.expand(count, 1, height, width)], 1)
