"""Macro average precision: area under the precision-recall curve, averaged over labels, by scikit-learn.

A label's average precision is the sum over its ranks of (R_n - R_{n-1}) P_n, without interpolation: only the order of
the outputs counts, so logits do as well as probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.rows import ABSENT

__all__ = ["macro_average_precision"]


def macro_average_precision(answers: NDArray[np.floating], labels: NDArray[Any]) -> float:
    """Return 0 to 1 for outputs (N, C) and labels (N, C) of 1, 0, and -1 if unknown.

    A label without known positive samples has no ranks and is left out. A NaN output is ranked where it does the most
    harm. Raises ValueError if shapes don't match or no label is left.
    """
    from sklearn.metrics import average_precision_score  # scikit-learn takes a second to import

    if answers.shape != labels.shape or labels.ndim != 2:
        raise ValueError(f"answers {answers.shape} don't match labels {labels.shape}: (N, labels) expected, both")
    most = np.finfo(np.float64).max
    ranked = np.where(np.isnan(answers), np.where(labels == 1, -most, most), answers.astype(np.float64))
    ranked = np.clip(ranked, -most, most)
    found = [
        average_precision_score(labels[known, at], ranked[known, at])
        for at in range(labels.shape[1])
        if (known := labels[:, at] != ABSENT).any() and (labels[:, at] == 1).any()
    ]
    if not found:
        raise ValueError("there is nothing to score: no sample has any of the labels")
    return float(np.mean(found))
