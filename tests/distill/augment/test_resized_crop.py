from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from edgekd.distill.augment.resized_crop import ResizedCrop


def test_all_of_the_image_is_the_image(make_images):
    batch = make_images(shape=(3, 7, 7))
    whole = ResizedCrop(area=(1.0, 1.0), aspect=(1.0, 1.0))
    assert torch.equal(whole(batch, np.arange(40), 0), batch)


def test_parts_have_the_areas_and_lie_inside():
    # an image that says where each pixel is: a part's corners tell its sides
    size = 64
    at = torch.arange(size, dtype=torch.float32)
    place = torch.stack((at[:, None].expand(size, size), at.expand(size, size)))
    seen = ResizedCrop(area=(0.2, 0.8))(place.expand(400, 2, size, size), np.arange(400), 1)
    rows, columns = seen[:, 0, :, size // 2], seen[:, 1, size // 2]
    # the slope between inner pixels, for the border is held where a part touches it
    h, w = (rows[:, 40] - rows[:, 24]) * size / 16, (columns[:, 40] - columns[:, 24]) * size / 16
    area, aspect = (h * w / size**2).numpy(), (w / h).numpy()
    assert stats.kstest(area, stats.uniform(0.2, 0.6).cdf).pvalue > 0.01
    assert aspect.min() > 0.749
    assert aspect.max() < 1.334
    centre = seen[:, :, 31:33, 31:33].mean((2, 3)) + 0.5
    for middle, side in ((centre[:, 0], h), (centre[:, 1], w)):
        assert (middle - side / 2 > -0.01).all()
        assert (middle + side / 2 < size + 0.01).all()
    assert seen.min() >= 0
    assert seen.max() <= size - 1
