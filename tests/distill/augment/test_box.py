from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgekd.distill.augment.box import inside, sides

MANY = np.arange(5000)


def test_areas_are_even_and_boxes_fit():
    h, w = sides(0, "s", MANY, (20, 40), (0.1, 1.0), (0.75, 4 / 3))
    assert (h <= 20 + 1e-9).all()
    assert (w <= 40 + 1e-9).all()
    assert stats.kstest(h * w / 800, stats.uniform(0.1, 0.9).cdf).pvalue > 0.01


def test_aspects_are_even_in_their_logarithm_where_all_fit():
    h, w = sides(0, "s", MANY, (30, 30), (0.1, 0.3), (0.5, 2.0))
    assert stats.kstest(np.log(w / h), stats.uniform(-np.log(2), 2 * np.log(2)).cdf).pvalue > 0.01


def test_pixels_inside():
    box = inside(*(np.array([n]) for n in (1, -2, 3, 2)), (4, 5))
    assert np.argwhere(box[0, 0]).tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]


@pytest.mark.parametrize("size", [(3, 60), (60, 3)])
def test_a_narrow_image_still_has_boxes_inside(size):
    h, w = sides(0, "s", MANY, size, (0.5, 1.0), (0.75, 4 / 3))
    assert (h <= size[0] + 1e-9).all()
    assert (w <= size[1] + 1e-9).all()
