from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.augment.shift import Shift


@pytest.mark.parametrize("shape", [(2, 50), (1, 1, 50), (2, 3, 50)])
@pytest.mark.parametrize("around", [False, True])
def test_moves_along_time_alone(make_images, shape, around):
    batch = make_images(200, shape)
    seen = Shift(share=0.1, around=around)(batch, np.arange(200), 0)
    found = set()
    for image, before in zip(seen, batch, strict=True):
        candidates = {}
        for by in range(-5, 6):
            rolled = before.roll(by, -1)
            if not around and by:
                gone = slice(0, by) if by > 0 else slice(by, None)
                rolled[..., gone] = 0
            candidates[by] = rolled
        (by,) = [by for by, rolled in candidates.items() if torch.equal(rolled, image)]
        found.add(by)
    assert found == set(range(-5, 6))


def test_a_share_of_less_than_a_step_is_refused(make_spec):
    (problem,) = Shift(share=0.1).check(make_spec((1, 1, 9)))
    assert "less than one step" in problem.message
    assert Shift(share=0.1).check(make_spec((2, 10))) == []
