from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.generative.diffaugment import changed, images_with_hole, shifted
from edgekd.distill.generative.discriminator import Discriminator
from edgekd.distill.generative.gan import GanPlan, critic_loss, sample_images, train_generator
from edgekd.errors import Diverged
from edgekd.tasks._protocol import InputSpec


def test_hinge_loss():
    real, generated = np.array([2.0, 0.5, -1.0]), np.array([-3.0, 0.0, 1.0])
    expected = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + generated).mean()
    assert critic_loss(torch.tensor(real), torch.tensor(generated)).item() == pytest.approx(expected)
    assert critic_loss(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -2.0])).item() == 0


def test_changes_let_gradients_through_and_keep_the_shape():
    images = torch.randn(6, 3, 16, 12, requires_grad=True)
    seen = changed(images)
    assert seen.shape == images.shape
    seen.sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}


def test_a_shift_moves_every_image_by_its_own_pixels():
    torch.manual_seed(0)
    images = torch.arange(1.0, 257.0).reshape(1, 1, 16, 16).expand(8, 1, 16, 16)
    moved = shifted(images)
    places = {(int(row), int(column)) for image in moved for row, column in [*(image[0] == 120).nonzero()]}
    assert len(places) > 3
    assert all(abs(row - 7) <= 2 and abs(column - 7) <= 2 for row, column in places)


def test_a_hole_is_half_of_each_side_at_most():
    torch.manual_seed(0)
    holes = 1 - images_with_hole(torch.ones(40, 1, 8, 12))[:, 0]
    sizes = [(int(hole.any(1).sum()), int(hole.any(0).sum())) for hole in holes]
    assert max(sizes) == (4, 6)
    assert all(int(hole.sum()) == tall * wide for hole, (tall, wide) in zip(holes, sizes, strict=True))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 15)])
def test_a_discriminator_scores_images_of_any_shape(shape):
    assert Discriminator(InputSpec(shape=shape), width=8)(torch.zeros(4, *shape)).shape == (4,)


def contest(**changes):
    options = {"digest": "0" * 64, "steps": 5, "batch_size": 8, "latent": 8, "width": 8, "learning_rate": 1e-3}
    return GanPlan(**{**options, "flip": True, "seed": 1, **changes})


def test_drawing_more_begins_with_the_same_images(tmp_path):
    spec = InputSpec(shape=(1, 8, 8))
    generator = train_generator(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), spec, contest(), tmp_path)
    assert torch.equal(sample_images(generator, 300, 3)[:256], sample_images(generator, 256, 3))
    assert not torch.equal(sample_images(generator, 20, 3), sample_images(generator, 20, 4))


def test_a_generator_that_diverges_says_what_to_do(tmp_path):
    with pytest.raises(Diverged, match=r"lower gan\.learning_rate"):
        train_generator(torch.zeros(10, 1, 8, 8), InputSpec(shape=(1, 8, 8)), contest(learning_rate=1e30), tmp_path)


@pytest.mark.slow
def test_learns_the_two_images_there_are(tmp_path):
    spec = InputSpec(shape=(1, 8, 8), raw_range=(0.0, 1.0), mean=(0.5,), std=(0.5,))
    half = (torch.arange(8) < 4).float()
    real = torch.stack([half.expand(8, 8), half[:, None].expand(8, 8)])[:, None]
    generator = train_generator(real, spec, contest(steps=400, batch_size=16, width=16, flip=False), tmp_path)
    images = sample_images(generator, 64, 0)
    nearest = (images[:, None] - real[None]).abs().mean((2, 3, 4)).min(1).values
    assert nearest.median() < 0.2  # grey all over would be 0.5 away
