from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.augment.colour import Colour, _turned, brightened, contrasted, saturated


@pytest.fixture
def shares():
    return torch.rand((5, 3, 6, 7), generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def grey(images):
    return (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def test_each_step_is_what_it_says(shares):
    factors = np.array([0.5, 0.9, 1.0, 1.1, 2.0])
    f = torch.tensor(factors, dtype=torch.float32)[:, None, None, None]
    torch.testing.assert_close(brightened(shares, factors), (shares * f).clamp(0, 1))
    mean = grey(shares).mean((2, 3), keepdim=True)
    torch.testing.assert_close(contrasted(shares, factors), (mean + (shares - mean) * f).clamp(0, 1))
    own = grey(shares)
    torch.testing.assert_close(saturated(shares, factors), (own + (shares - own) * f).clamp(0, 1))


def test_no_saturation_is_grey(shares):
    seen = saturated(shares, np.zeros(5))
    torch.testing.assert_close(seen, grey(shares).expand_as(seen))


def test_hue_turns_colours_and_keeps_brightness(shares):
    turned = _turned(shares * 0.2 + 0.4, np.full(5, 0.3))
    torch.testing.assert_close(grey(turned), grey(shares * 0.2 + 0.4), rtol=0, atol=1e-5)
    again = _turned(turned, np.full(5, -0.3))
    torch.testing.assert_close(again, shares * 0.2 + 0.4, rtol=0, atol=1e-5)
    flat = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(_turned(flat, np.array([0.4])), flat, rtol=0, atol=1e-5)
    # half a turn of a red is a cyan, by Python's own hue as well
    hue = colorsys.rgb_to_hsv(
        *_turned(torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1), np.array([0.5])).flatten().tolist()
    )
    assert hue[0] == pytest.approx(0.5, abs=0.02)


def test_factors_lie_within_the_range(make_spec):
    batch = torch.full((500, 3, 1 + 1, 2), 100, dtype=torch.uint8)
    seen = Colour(brightness=0.4).bound(make_spec((3, 2, 2)))(batch, np.arange(500), 0)[:, 0, 0, 0].float()
    assert (seen.min(), seen.max()) == (pytest.approx(60, abs=1), pytest.approx(140, abs=1))
    assert seen.mean() == pytest.approx(100, abs=3)


def test_bytes_that_nothing_changes_are_the_same(make_spec, make_images):
    batch = make_images(shape=(3, 32, 32))
    assert torch.equal(Colour(brightness=1e-9).bound(make_spec())(batch, np.arange(40), 0), batch)


@pytest.mark.parametrize(("low", "high"), [(0.0, 16.0), (-1.0, 1.0), (0.0, 1.0)])
def test_the_raw_range_is_kept(make_spec, low, high):
    spec = make_spec((3, 8, 8), raw_dtype="float32", raw_range=(low, high))
    batch = low + (high - low) * torch.rand((50, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    seen = Colour(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5).bound(spec)(batch, np.arange(50), 0)
    assert seen.min() == pytest.approx(low)
    assert seen.max() == pytest.approx(high)


def test_what_is_refused(make_spec):
    with pytest.raises(ValidationError, match="give brightness"):
        Colour()
    (problem,) = Colour(hue=0.1, brightness=0.1).check(make_spec((1, 8, 8)))
    assert "1 channel" in problem.message
    assert Colour(brightness=0.1, contrast=0.2).check(make_spec((1, 8, 8))) == []
    (problem,) = Colour(hue=0.1).check(make_spec((1, 1, 800)))
    assert "is for images" in problem.message
    with pytest.raises(ValueError, match="not bound to a task"):
        Colour(brightness=0.1)(torch.zeros((1, 3, 8, 8)), np.arange(1), 0)
