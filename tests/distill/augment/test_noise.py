from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from edgekd.distill.augment.noise import Noise


@pytest.fixture
def tones():
    """Sines of several loudnesses, not about zero."""
    time = torch.arange(4000.0)
    return torch.stack([a * torch.sin(time * 0.1) + 0.3 for a in (0.1, 0.5, 1.0, 2.0)])[:, None, None]


def test_share_is_the_deviation_in_the_raw_range(make_spec, tones):
    spec = make_spec((1, 1, 4000), raw_dtype="float32", raw_range=(-2.0, 2.0))
    noise = Noise(share=0.1).bound(spec)(tones, np.arange(4), 0) - tones
    assert (noise / 0.4).std((1, 2, 3)).numpy() == pytest.approx(1, abs=0.05)
    assert stats.kstest((noise / 0.4).numpy().ravel()[::4], stats.norm.cdf).pvalue > 0.01


def test_ratio_as_measured(make_spec, tones):
    spec = make_spec((1, 1, 4000), raw_dtype="float32")
    noise = Noise(snr_db=20.0).bound(spec)(tones, np.arange(4), 0) - tones
    ratio = 10 * torch.log10(tones.var((1, 2, 3)) / (noise**2).mean((1, 2, 3)))
    assert ratio.numpy() == pytest.approx(20, abs=0.3)


def test_ratios_are_drawn_between_two(make_spec, tones):
    spec = make_spec((1, 1, 4000), raw_dtype="float32")
    many = tones[2:3].expand(300, 1, 1, 4000)
    noise = Noise(snr_db=(0, 30)).bound(spec)(many, np.arange(300), 0) - many
    ratio = 10 * torch.log10(many.var((1, 2, 3)) / (noise**2).mean((1, 2, 3)))
    assert stats.kstest(ratio.numpy(), stats.uniform(0, 30).cdf).pvalue > 0.01


def test_silence_stays_silent(make_spec):
    spec = make_spec((1, 1, 50), raw_dtype="float32")
    assert torch.equal(
        Noise(snr_db=10).bound(spec)(torch.zeros((2, 1, 1, 50)), np.arange(2), 0), torch.zeros((2, 1, 1, 50))
    )


def test_bytes_are_rounded_and_stay_in_the_range(make_spec):
    spec = make_spec((1, 40, 40), raw_range=(0.0, 16.0))
    seen = Noise(share=0.5).bound(spec)(torch.full((20, 1, 40, 40), 8, dtype=torch.uint8), np.arange(20), 0)
    assert seen.dtype == torch.uint8
    assert (seen.min(), seen.max()) == (0, 16)
    assert seen.float().mean() == pytest.approx(8, abs=0.2)


@pytest.mark.parametrize("options", [{}, {"share": 0.1, "snr_db": 20}, {"share": 0}, {"snr_db": (30, 10)}])
def test_options_that_contradict(options):
    with pytest.raises(ValidationError):
        Noise(**options)
