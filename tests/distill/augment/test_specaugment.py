from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from edgekd.distill.augment.specaugment import SpecAugment


def widths(lines):
    """How many are masked, where the masked stand together."""
    first, last = lines.argmax(1), lines.shape[1] - lines[:, ::-1].argmax(1)
    counts = lines.sum(1)
    assert (counts[counts > 0] == (last - first)[counts > 0]).all()
    return counts


@pytest.fixture
def ramp():
    """No value is the mean."""
    return torch.arange(30.0 * 40).view(1, 1, 30, 40).expand(1000, 1, 30, 40) + torch.rand(1000, 1, 1, 1)


def masked(seen, ramp):
    return (seen != ramp)[:, 0].numpy()


def test_one_band_and_one_span_of_even_widths(ramp):
    indices = np.arange(1000)
    mask = masked(SpecAugment(frequency=8, time=12)(ramp, indices, 0), ramp)
    bands, spans = mask.all(axis=2), mask.all(axis=1)
    assert (mask == (bands[:, :, None] | spans[:, None, :])).all()
    for found, most in ((widths(bands), 8), (widths(spans), 12)):
        assert stats.chisquare(np.bincount(found, minlength=most + 1)).pvalue > 0.01


def test_left_out_is_a_quarter_of_each_axis(ramp):
    mask = masked(SpecAugment()(ramp, np.arange(1000), 0), ramp)
    assert mask.all(axis=2).sum(axis=1).max() == 7
    assert mask.all(axis=1).sum(axis=1).max() == 10


def test_masks_hold_the_samples_mean(ramp):
    seen = SpecAugment(frequency=8, time=12)(ramp, np.arange(1000), 0)
    mask = seen != ramp
    torch.testing.assert_close(seen[mask], ramp.mean((1, 2, 3), keepdim=True).expand_as(ramp)[mask])


@pytest.mark.parametrize("shape", [(1, 1, 40), (2, 40)])
def test_a_signal_has_its_time_masked_alone(make_images, shape):
    batch = make_images(100, shape)
    seen = SpecAugment(time=10, time_masks=2)(batch, np.arange(100), 0)
    same = (seen == batch).flatten(1, -2).all(1)
    assert 20 <= same.sum(1).min() < 40


def test_masks_wider_than_their_axis_are_refused(make_spec):
    found = SpecAugment(frequency=31, time=41).check(make_spec((1, 30, 40)))
    assert [problem.message.split(":")[0] for problem in found] == ["frequency", "time"]
    assert "which is 30" in found[0].message
    (problem,) = SpecAugment(frequency=1).check(make_spec((1, 1, 40)))
    assert "no frequency axis" in problem.message
    assert SpecAugment(frequency=30, time=40).check(make_spec((1, 30, 40))) == []
