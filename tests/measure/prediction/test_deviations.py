"""The process over kernels: its slopes are those of its covariance, and it learns from sums alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.ir.kernels import Kernel
from edgekd.measure.prediction.deviations import Mixture, _Distances, _with_slopes, fit_scales, posterior
from edgekd.store.predicted import Scales


def kernels(count, seed=0):
    drawn = np.random.default_rng(seed)
    return tuple(
        Kernel("add" if number % 4 == 3 else "conv", *map(int, drawn.integers(4, 65, 2)), side, side, 9, 1, 1, 1, 1, 1)
        for number, side in enumerate(drawn.choice([8, 16, 32], count).tolist())
    )


def mixture(count, of, seed=0):
    drawn = np.random.default_rng(seed)
    shares = drawn.dirichlet(np.full(len(of), 0.5), count)
    return Mixture(of, shares, drawn.uniform(4.0, 10.0, count))


@pytest.mark.parametrize("name", list(Scales.model_fields))
def test_slopes_are_the_covariances_own(name):
    seen = mixture(6, kernels(15))
    distances, names = _Distances(seen.kernels, seen.kernels), list(Scales.model_fields)
    at = Scales()
    step = 1e-5
    above, below = (at.but(**{name: getattr(at, name) * np.exp(sign * step)}) for sign in (1, -1))
    by_differences = (_with_slopes(above, distances, seen)[0] - _with_slopes(below, distances, seen)[0]) / (2 * step)
    assert np.allclose(_with_slopes(at, distances, seen)[1][names.index(name)], by_differences, atol=1e-8)


def test_what_was_seen_is_known_and_what_is_far_is_not():
    of = kernels(12)
    seen, truth = mixture(8, of), np.random.default_rng(1).normal(0.0, 0.2, 12)
    scales = Scales(noise=0.001, network=0.001)
    again = posterior(scales, seen, seen.shares @ truth, seen)
    assert np.allclose(again.mean, seen.shares @ truth, atol=0.01)
    assert (again.spread < 0.02).all()
    unlike = (Kernel("depthwise", 500, 500, 2, 2, 25, 4, 1, 1, 1, 1),)
    far = posterior(scales, seen, seen.shares @ truth, Mixture(unlike, np.ones((1, 1)), np.array([20.0])))
    assert far.mean[0] == pytest.approx(0.0, abs=1e-6)
    assert far.spread[0] == pytest.approx(np.hypot(scales.kind, scales.kernel), rel=0.01)


def test_noise_is_told_from_deviations():
    of = kernels(30, seed=2)
    seen = mixture(40, of, seed=2)
    drawn = np.random.default_rng(3)
    noisy = fit_scales(seen, drawn.normal(0.0, 0.1, 40), Scales())
    quiet = fit_scales(seen, seen.shares @ drawn.normal(0.0, 0.3, 30), Scales())
    assert noisy.noise > 3 * quiet.noise
