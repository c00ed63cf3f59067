"""The learning-rate range test, on quadratics whose largest useful rate is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from edgekd.distill.range_test import chosen_rate, range_test
from edgekd.errors import Diverged, Interrupted


class Quadratic:
    """Noisy gradient descent on the sum of ``c / 2 * w**2``: it diverges at rates above 2 / max(c)."""

    def __init__(self, *curvatures: float) -> None:
        self.curvatures, self.taken = np.array(curvatures), 0

    def __call__(self, rates: Sequence[float]) -> Iterator[float]:
        weights, drawn = np.ones(len(self.curvatures)), np.random.default_rng(0)
        for rate in rates:
            loss = float((self.curvatures / 2 * weights**2).sum())
            weights = weights - rate * self.curvatures * (weights + 0.2 * drawn.normal(size=len(weights)))
            self.taken += 1
            yield loss


@pytest.mark.parametrize("curvature", [3.0, 300.0, 30000.0])
def test_the_rate_follows_the_curvature(curvature: float) -> None:
    rate = range_test(Quadratic(curvature, curvature / 10), steps=400)
    assert 0.02 / curvature < rate < 2 / curvature


def test_no_rate_is_tried_once_the_loss_has_risen() -> None:
    steep = Quadratic(3e4)
    range_test(steep, steps=400)
    assert steep.taken < 40  # of 100; it diverges from the 31st on


@pytest.mark.parametrize(("steps", "tried"), [(10, 30), (200, 50), (10_000, 100)])
def test_it_takes_a_share_of_a_training(steps: int, tried: int) -> None:
    flat = Quadratic(1e-6)
    range_test(flat, steps)
    assert flat.taken == tried


def test_a_loss_that_is_no_number_ends_it() -> None:
    ended = range_test(lambda rates: iter([2.0, 1.0, math.nan, *rates]), steps=100)
    assert ended == pytest.approx(1e-6 * 1e6 ** (1 / 29) / 3)  # of 30 rates the second
    with pytest.raises(Diverged, match="at the lowest learning rate"):
        range_test(lambda _: iter([math.nan]), steps=100)


def test_one_low_loss_among_high_ones_is_noise() -> None:
    rates = [10 ** (0.1 * at - 4) for at in range(9)]
    losses = [3.0, 0.1, 3.0, 2.0, 1.5, 1.0, 0.9, 1.0, 1.5]
    assert chosen_rate(rates, losses) == pytest.approx(10**-3.4 / 3, rel=0.3)


def test_it_can_be_stopped() -> None:
    with pytest.raises(Interrupted):
        range_test(Quadratic(1.0), 100, stop=lambda: True)
