"""The learning-rate range test: the rate rises from step to step until the loss does too.

A tenth of the rate with the least smoothed loss is taken (Smith 2017, arXiv 1506.01186; a tenth as in fastai): at that
rate itself the loss has stopped falling. One rate suits no two networks: one trained without BatchNorm diverges at a
hundredth of what others need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from edgekd.errors import Diverged, Interrupted

__all__ = ["chosen_rate", "range_test"]

_LOWEST, _HIGHEST = 1e-6, 1.0
_FEWEST, _MOST = 30, 100  # steps of a test
_SHARE = 0.25  # of the training's own steps
_SMOOTHING = 0.9  # decay of the running average of losses
_RISEN = 4.0  # times the least: no higher rate is tried
_MARGIN = 10.0


def range_test(
    losses: Callable[[Sequence[float]], Iterator[float]], steps: int, stop: Callable[[], bool] = lambda: False
) -> float:
    """The highest learning rate for a training of so many steps.

    ``losses`` trains a copy, a step at each of the rates it gets, and yields the losses. Raises Interrupted, and
    Diverged where the loss is no number even at the lowest rate.
    """
    count = min(_MOST, max(_FEWEST, round(_SHARE * steps)))
    rates = [_LOWEST * (_HIGHEST / _LOWEST) ** (at / (count - 1)) for at in range(count)]
    found = list[float]()
    for loss in losses(rates):
        if stop():
            raise Interrupted("stopped in the range test of the learning rate", "run the same command again")
        found.append(loss)
        smoothed = _smoothed(found)
        if not smoothed[-1] <= _RISEN * min(smoothed):  # nor is it where it is no number
            break
    return chosen_rate(rates, found)


def chosen_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate at which the smoothed loss is least. ``losses`` may end before ``rates`` do.

    Raises Diverged where the first loss is no number.
    """
    smoothed = _smoothed(losses)
    if not smoothed or not math.isfinite(smoothed[0]):
        raise Diverged(
            "the loss is NaN or infinite before anything was learned",
            "look at the inputs, and at the teacher's answers",
        )
    return rates[smoothed.index(min(smoothed))] / _MARGIN


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Their running average, without the bias of its start; it ends before the first that is not finite."""
    average, found = 0.0, list[float]()
    for at, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1.0 - _SMOOTHING) * loss
        found.append(average / (1.0 - _SMOOTHING**at) if math.isfinite(loss) else math.inf)
    return found
