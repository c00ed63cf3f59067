from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgekd.distill.augment.random import beta, choices, many_bytes, many_normals, random_bits, uniform

MANY = np.arange(20_000)


def test_random_numbers_are_the_same_on_every_machine():
    # fixed for ever: teachers' stored answers depend on it
    assert random_bits(7, "flip", np.array([0, 1])).tolist() == [1672628895419230332, 3628935255689229801]
    drawn = choices(1, "crop.top", np.arange(90_000), 9)
    assert abs(np.bincount(drawn, minlength=9) - 10_000).max() < 500
    together = drawn * 9 + choices(1, "crop.left", np.arange(90_000), 9)
    assert abs(np.bincount(together, minlength=81) - 1111).max() < 200


def test_other_distributions_are_the_same_too():
    assert uniform(7, "a", np.array([0, 1])).tolist() == [0.30351995373059537, 0.7640485270508256]
    assert many_bytes(7, "a", np.array([3]), 5).tolist() == [[196, 160, 199, 35, 206]]
    assert many_normals(7, "a", np.array([3]), 3).tolist() == [
        pytest.approx([0.3265566, -1.0813853, -0.2898554], abs=1e-6)
    ]


def test_uniform():
    found = uniform(0, "u", MANY, -2, 3)
    assert stats.kstest(found, stats.uniform(-2, 5).cdf).pvalue > 0.01
    lows = MANY.astype(np.float64)
    assert (np.floor(uniform(0, "u", MANY, lows, lows + 1)) == MANY).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta(alpha):
    assert stats.kstest(beta(0, "b", MANY, alpha), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_normals():
    found = many_normals(0, "n", MANY[:200], 501)
    assert found.shape == (200, 501)
    assert stats.kstest(found.ravel(), stats.norm.cdf).pvalue > 0.01
    assert found.var() == pytest.approx(1, abs=0.02)
    # neither samples nor places within one go together
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < 0.02


def test_bytes():
    found = many_bytes(0, "n", MANY[:200], 501)
    assert stats.chisquare(np.bincount(found.ravel(), minlength=256)).pvalue > 0.01


def test_a_part_of_the_samples_draws_the_same():
    some = MANY[[5, 3, 900]]
    for draw in (
        lambda at: uniform(1, "x", at),
        lambda at: beta(1, "x", at, 0.3),
        lambda at: many_normals(1, "x", at, 7),
    ):
        assert np.array_equal(draw(some), draw(MANY)[some])
