"""Top-1 accuracy: the share of samples whose largest output is their label; and whether guessing nearly has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import Score

__all__ = ["near_chance", "top1"]

_TIMES, _MORE, _OF_THE_REST = 1.5, 0.1, 0.25


def top1(outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
    """Score outputs (N, classes) against labels (N,). Of equal outputs the first counts; a row with a NaN is wrong.

    Raises ValueError if shapes don't match or there are no samples.
    """
    if outputs.ndim != 2 or len(outputs) != len(labels):
        raise ValueError(f"outputs {outputs.shape} don't match labels {labels.shape}: (N, classes) and (N,) expected")
    if not len(labels):
        raise ValueError("there are no samples to score")
    correct = (outputs.argmax(axis=1) == labels) & ~np.isnan(outputs).any(axis=1)
    return Score(metric="top1", value=float(correct.mean()), samples=len(labels), correct=tuple(correct.tolist()))


def near_chance(score: float, labels: NDArray[np.int64], classes: int) -> str:
    """Describe a top-1 accuracy on samples with these labels that is hardly better than chance; else empty.

    Chance is to name the largest class always. Better is 1.5 times that, 10 points more, or a quarter of the rest:
    whichever is least.
    """
    chance = max(1.0 / classes, float(np.bincount(labels).max() / len(labels)) if len(labels) else 0.0)
    if score >= min(_TIMES * chance, chance + _MORE, chance + _OF_THE_REST * (1.0 - chance)):
        return ""
    return f"hardly better than chance: {score:.1%}, and guessing scores {chance:.1%}"
