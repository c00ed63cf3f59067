from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.augment.rotate import Rotate


def test_angles_lie_within_the_range_evenly():
    # one bright pixel to the right of the centre shows each sample's angle
    batch = torch.zeros((300, 1, 101, 101))
    batch[:, :, 49:52, 89:92] = 1
    seen = Rotate(degrees=30)(batch, np.arange(300), 0)[:, 0]
    at = torch.arange(101) - 50.0
    x, y = (seen * at).sum((1, 2)), (seen * at[:, None]).sum((1, 2))
    angles = np.rad2deg(np.arctan2(-y.numpy(), x.numpy()))
    assert abs(angles).max() < 30.5
    assert np.std(angles) == pytest.approx(60 / np.sqrt(12), rel=0.1)
    assert np.mean(angles) == pytest.approx(0, abs=3)


def test_pixels_stay_bytes_and_the_centre_stays(make_images):
    batch = make_images(10, (3, 9, 9))
    seen = Rotate(degrees=180)(batch, np.arange(10), 0)
    assert seen.dtype == torch.uint8
    assert torch.equal(seen[:, :, 4, 4], batch[:, :, 4, 4])


@pytest.mark.parametrize("degrees", [0, -5, 181])
def test_angles_that_mean_nothing(degrees):
    with pytest.raises(ValidationError):
        Rotate(degrees=degrees)
