"""Learning-rate range test (Smith 2017, arXiv 1506.01186): the rate rises step by step until the loss rises too.

The result is a third of the rate with the lowest smoothed loss: at that rate itself the loss has stopped falling. No
single rate suits all networks: one without BatchNorm, trained with simulated rounding, diverges at a hundredth of what
others need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgekd.errors import Diverged, Interrupted

__all__ = ["chosen_rate", "range_test"]

_LOWEST, _HIGHEST = 1e-6, 1.0
_FEWEST, _MOST = 30, 100  # steps of a test
_SHARE = 0.25  # of the training's own steps
_WIDTH = 0.2  # of the smoothing, in decades of the rate: one standard deviation
_RISEN, _LAST = 4.0, 3  # the test ends where the last three losses are on average four times the least average of three
_MARGIN = 3.0


def range_test(
    losses: Callable[[Sequence[float]], Iterator[float]], steps: int, stop: Callable[[], bool] = lambda: False
) -> float:
    """Return the peak learning rate for a training of ``steps`` steps.

    ``losses`` trains a copy, one step at each of the given rates, and yields the losses. Raises Interrupted, and
    Diverged if the loss is not finite even at the lowest rate.
    """
    count = min(_MOST, max(_FEWEST, round(_SHARE * steps)))
    rates = list(map(float, np.geomspace(_LOWEST, _HIGHEST, count)))
    found, means = list[float](), list[float]()
    for loss in losses(rates):
        if stop():
            raise Interrupted("stopped in the range test of the learning rate", "run the same command again")
        if not math.isfinite(loss):
            break
        found.append(loss)
        means.append(float(np.mean(found[-_LAST:])))
        if len(found) >= _LAST and means[-1] > _RISEN * min(means[_LAST - 1 :]):
            break
    return chosen_rate(rates, found)


def chosen_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return a third of the rate with the lowest smoothed loss. ``losses`` are finite, and may be fewer than ``rates``.

    Raises Diverged if there are none.
    """
    if not losses:
        raise Diverged(
            "the loss is NaN or infinite at the lowest learning rate",
            "check the inputs and the teacher's logits",
        )
    decades = np.log10(np.asarray(rates[: len(losses)]))
    weights = np.exp(-0.5 * ((decades[:, None] - decades[None, :]) / _WIDTH) ** 2)
    smoothed = weights @ np.asarray(losses) / weights.sum(1)
    return rates[int(smoothed.argmin())] / _MARGIN
