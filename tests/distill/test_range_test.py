"""The learning-rate range test, on quadratics whose largest useful rate is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest

from edgekd.distill.range_test import chosen_rate, range_test
from edgekd.errors import Diverged, Interrupted


class Quadratic:
    """Gradient descent on the sum of ``c / 2 * w**2``: it diverges at rates above 2 / max(c)."""

    def __init__(self, *curvatures: float) -> None:
        self.curvatures, self.taken = curvatures, 0

    def __call__(self, rates: Sequence[float]) -> Iterator[float]:
        weights = [1.0] * len(self.curvatures)
        for rate in rates:
            loss = sum(c / 2 * w * w for c, w in zip(self.curvatures, weights, strict=True))
            weights = [w - rate * c * w for c, w in zip(self.curvatures, weights, strict=True)]
            self.taken += 1
            yield loss


@pytest.mark.parametrize("curvature", [3.0, 300.0, 30000.0])
def test_the_rate_follows_the_curvature(curvature: float) -> None:
    rate = range_test(Quadratic(curvature, curvature / 10), steps=400)
    assert 0.01 / curvature < rate < 2 / curvature


def test_no_rate_is_tried_once_the_loss_has_risen() -> None:
    steep = Quadratic(3e4)
    range_test(steep, steps=400)
    assert 60 < steep.taken < 90  # of 100


@pytest.mark.parametrize(("steps", "tried"), [(10, 30), (200, 50), (10_000, 100)])
def test_it_takes_a_share_of_a_training(steps: int, tried: int) -> None:
    flat = Quadratic(1e-6)
    range_test(flat, steps)
    assert flat.taken == tried


def test_a_loss_that_is_no_number_ends_it() -> None:
    assert chosen_rate([1e-3, 1e-2, 1e-1], [2.0, 1.0, math.nan]) == pytest.approx(1e-3)
    with pytest.raises(Diverged, match="before anything was learned"):
        chosen_rate([1e-3, 1e-2], [math.nan])


def test_it_can_be_stopped() -> None:
    with pytest.raises(Interrupted):
        range_test(Quadratic(1.0), 100, stop=lambda: True)
