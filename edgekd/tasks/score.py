"""Top-1 accuracy: the share of samples whose largest output is their label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import Score

__all__ = ["top1"]


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
