from __future__ import annotations

import numpy as np
import torch

from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.random import choices


def test_crop_is_a_window_of_the_padded_image(make_images):
    batch, indices = make_images(), np.arange(40)
    found = PadCrop(pad=2)(batch, indices, 3)
    tops, lefts = choices(3, "crop.top", indices, 5), choices(3, "crop.left", indices, 5)
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2))
    for n, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        assert torch.equal(found[n], padded[n, :, top : top + 8, left : left + 6])
    assert set(tops) == set(lefts) == set(range(5))


def test_a_border_as_wide_as_the_image_is_refused(make_spec):
    (problem,) = PadCrop(pad=16).check(make_spec((3, 16, 20)))
    assert "16 x 20 images to nothing" in problem.message
    assert PadCrop(pad=15).check(make_spec((3, 16, 20))) == []
