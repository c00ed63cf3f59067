from __future__ import annotations

import pytest
import torch

from edgekd.distill.generative.generator import Generator
from edgekd.tasks._protocol import InputSpec


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 15), (3, 96, 64), (1, 28, 28)])
def test_draws_images_of_any_shape_within_the_raw_range(shape):
    spec = InputSpec(shape=shape, raw_dtype="float32", raw_range=(-2.0, 6.0), mean=(0.0,), std=(1.5,))
    generator = Generator(spec, latent=12, width=8)
    images = generator(generator.noise(5))
    assert images.shape == (5, *shape)
    assert images.dtype == torch.float32
    assert -2 <= images.min() < images.max() <= 6
    assert sum(part.numel() for part in generator.parameters()) < 400_000


def test_begins_near_the_tasks_own_mean_and_deviation():
    spec = InputSpec(shape=(3, 16, 16), mean=(60.0, 120.0, 190.0), std=(40.0, 60.0, 50.0))
    torch.manual_seed(0)
    generator = Generator(spec)
    images = generator(generator.noise(64)).detach()
    assert images.mean((0, 2, 3)).tolist() == pytest.approx(spec.mean, abs=20)
    assert images.std((0, 2, 3)).tolist() == pytest.approx(spec.std, rel=0.35)
