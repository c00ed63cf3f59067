"""DiffAugment: differentiable augmentation of real and generated images before the discriminator (Zhao et al.

2020, NeurIPS, "Differentiable augmentation for data-efficient GAN training", arXiv 2006.10738).

With few images a discriminator soon memorizes them. If only the real images were augmented, the generator would copy
the augmentation; augmenting both, with gradients passing through, avoids that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["changed"]

_SHIFT, _HOLE, _BRIGHTER = 1 / 8, 1 / 2, 0.5  # of a side, of a side, of the range -1..1 either way: the paper's


def changed(images: Tensor) -> Tensor:
    """Augment images (N, C, H, W), about -1..1: brightness, shift, cutout. Uses torch's global generator.

    Pixels from outside the image and in the cutout are 0.
    """
    images = images + (torch.rand(len(images), 1, 1, 1).to(images) - 0.5) * (2 * _BRIGHTER)
    return images_with_hole(shifted(images))


def shifted(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its sides, in every direction."""
    count, _, height, width = images.shape
    down, right = max(1, round(height * _SHIFT)), max(1, round(width * _SHIFT))
    top = torch.randint(0, 2 * down + 1, (count, 1, 1)) + torch.arange(height).reshape(1, -1, 1)
    left = torch.randint(0, 2 * right + 1, (count, 1, 1)) + torch.arange(width).reshape(1, 1, -1)
    padded = functional.pad(images, (right, right, down, down)).permute(0, 2, 3, 1)
    return padded[torch.arange(count).reshape(-1, 1, 1), top, left].permute(0, 3, 1, 2)


def images_with_hole(images: Tensor) -> Tensor:
    """Set a rectangle of half the sides to 0, at a random place, possibly partly outside."""
    count, _, height, width = images.shape
    tall, wide = round(height * _HOLE), round(width * _HOLE)
    top = torch.randint(0, height + 1, (count, 1)) - tall // 2
    left = torch.randint(0, width + 1, (count, 1)) - wide // 2
    rows, columns = torch.arange(height), torch.arange(width)
    within = ((rows >= top) & (rows < top + tall))[:, :, None] & ((columns >= left) & (columns < left + wide))[:, None]
    return images * (~within)[:, None].to(images)
