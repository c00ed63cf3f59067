from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from edgekd.distill.augment.erase import Erase


def erased(make_spec, count=1500, **options):
    """Where (N, 100, 100) one-channel images of 300 (no raw value of the task) were changed."""
    spec = make_spec((1, 100, 100), raw_dtype="float32")
    batch = torch.full((count, 1, 100, 100), 300.0)
    return (Erase(**options).bound(spec)(batch, np.arange(count), 0)[:, 0] != 300).numpy()


@pytest.mark.slow
def test_probability(make_spec):
    changed = erased(make_spec, probability=0.25).any(axis=(1, 2))
    assert changed.mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.slow
def test_it_is_one_rectangle_of_the_areas_and_aspects(make_spec):
    masks = erased(make_spec, probability=1.0, area=(0.05, 0.3), aspect=(0.5, 2.0))
    h, w = masks.any(axis=2).sum(axis=1), masks.any(axis=1).sum(axis=1)
    assert (h * w == masks.sum(axis=(1, 2))).all()
    assert stats.kstest(h * w / 10_000, stats.uniform(0.05, 0.25).cdf).pvalue > 0.01
    assert stats.kstest(np.log(w / h), stats.uniform(-np.log(2), 2 * np.log(2)).cdf).pvalue > 0.01
    top = masks.any(axis=2).argmax(axis=1)
    assert stats.kstest((top + 0.5) / (101 - h), stats.uniform.cdf).pvalue > 0.01


def test_filled_from_the_raw_range_value_by_value(make_spec):
    spec = make_spec((3, 40, 40), raw_range=(16.0, 32.0))
    batch = torch.zeros((60, 3, 40, 40), dtype=torch.uint8)
    seen = Erase(probability=1.0, area=(0.4, 0.4)).bound(spec)(batch, np.arange(60), 0)
    values = seen[seen > 0].numpy()
    assert (values.min(), values.max()) == (16, 32)
    inner = np.bincount(values, minlength=33)[17:32]
    assert inner.min() / inner.max() > 0.9
    box = seen[0][:, (seen[0] > 0).any(0)].float()
    assert abs(np.corrcoef(box.numpy())[0, 1]) < 0.2  # channels apart


def test_filled_with_zeros(make_spec, make_images):
    batch = make_images(50, (3, 32, 32))
    seen = Erase(probability=1.0, fill="zero").bound(make_spec())(batch, np.arange(50), 0)
    assert (seen == 0).any(dim=1).flatten(1).any(dim=1).all()
    assert torch.equal(seen[seen != 0], batch[seen != 0])


@pytest.mark.parametrize("options", [{"probability": 1.5}, {"area": (0.4, 0.1)}, {"area": (0, 1)}, {"aspect": (-1, 1)}])
def test_options_that_mean_nothing(options):
    with pytest.raises(ValidationError):
        Erase(**options)
