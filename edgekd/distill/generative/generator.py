"""Generator of images from noise, used only during a training (DCGAN, Radford et al. 2016, arXiv 1511.06434).

A linear layer to a few pixels, then nearest-neighbour upsampling and 3 x 3 convolutions with BatchNorm (deconvolutions
leave checkerboards). As in DAFL (Chen et al. 2019) a sigmoid bounds the output, so that every image is one a sensor
could have given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.tasks._protocol import InputSpec

__all__ = ["SMALLEST_SIDE", "Generator"]

SMALLEST_SIDE = 8
_START = 8  # pixels a side, at most, that the linear layer draws
_DOUBLINGS = 2  # at least


class Generator(nn.Module):
    """Maps noise (N, latent) to float32 images (N, C, H, W) in raw units, strictly within the input's raw range.

    ``width``: channels of the last hidden layer; those before it have twice as many.
    """

    def __init__(self, spec: InputSpec, latent: int = 100, width: int = 32) -> None:
        super().__init__()
        channels, self.height, self.width = spec.shape
        self.latent, (low, high) = latent, spec.raw_range
        self.low, self.span = low, high - low
        doublings = max(_DOUBLINGS, math.ceil(math.log2(min(self.height, self.width) / _START)))
        factor = 2**doublings
        wide = 2 * width
        self.start = (wide, math.ceil(self.height / factor), math.ceil(self.width / factor))
        self.linear = nn.Linear(latent, math.prod(self.start))
        layers: list[nn.Module] = [nn.BatchNorm2d(wide)]
        for number in range(doublings):
            after = width if number + 1 == doublings else wide
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(wide, after, 3, padding=1), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(width, channels, 3, padding=1), _beginning(spec)]
        self.layers = nn.Sequential(*layers)

    def noise(self, count: int) -> Tensor:
        """Return standard normal noise (count, latent) from torch's global generator, on the network's device."""
        return torch.randn(count, self.latent).to(self.linear.weight.device)

    def forward(self, noise: Tensor) -> Tensor:
        drawn = self.layers(self.linear(noise).reshape(-1, *self.start))
        return self.low + self.span * functional.sigmoid(drawn[:, :, : self.height, : self.width])


def _beginning(spec: InputSpec) -> nn.BatchNorm2d:
    """Return a last BatchNorm that gives the first images about the task's mean and deviation in each channel."""
    low, high = spec.raw_range
    norm = nn.BatchNorm2d(spec.shape[0])
    mean = ((torch.tensor(spec.mean) - low) / (high - low)).clamp(0.02, 0.98).expand(spec.shape[0])
    std = (torch.tensor(spec.std) / (high - low)).expand(spec.shape[0])
    with torch.no_grad():
        norm.bias.copy_(torch.logit(mean))
        norm.weight.copy_((std / (mean * (1 - mean))).clamp(0.5, 4.0))  # by the sigmoid's slope there
    return norm
