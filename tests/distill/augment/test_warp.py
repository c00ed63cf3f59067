from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.augment.warp import rotation, warped


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_rot90(make_images, turns):
    batch = make_images(4, (3, 9, 9))
    found = warped(batch, rotation(np.full(4, 90.0 * turns)))
    torch.testing.assert_close(found, torch.rot90(batch, turns, (2, 3)).float(), rtol=0, atol=1e-3)


def test_a_half_turn_of_an_image_that_is_no_square(make_images):
    batch = make_images(3, (1, 6, 11))
    found = warped(batch, rotation(np.full(3, 180.0)))
    torch.testing.assert_close(found, batch.flip(2, 3).float(), rtol=0, atol=1e-3)


def test_angles_are_right_where_width_is_not_height():
    # a bright row, turned by 45 degrees, is a diagonal that rises as fast as it goes
    batch = torch.zeros((1, 1, 21, 41))
    batch[0, 0, 10] = 1
    seen = warped(batch, rotation(np.array([45.0])))[0, 0]
    assert seen[10, 20] > 0.5
    assert seen[4, 26] > 0.5
    assert seen[16, 14] > 0.5


def test_bilinear_between_pixels():
    batch = torch.tensor([[[[0.0, 10.0, 40.0]]]])
    half = np.array([[[1, 0, 0.5], [0, 1, 0]]], np.float64)
    assert warped(batch, half).flatten().tolist() == pytest.approx([5, 25, 20])
    assert warped(batch, half, outside="border").flatten().tolist() == pytest.approx([5, 25, 40])
    assert warped(batch, half, fill=4.0).flatten().tolist() == pytest.approx([5, 25, 22])
