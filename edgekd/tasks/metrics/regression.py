"""R^2, averaged over numbers, by scikit-learn; and the mean absolute error, in the label's own units.

    R^2 = 1 - sum (y - f)^2 / sum (y - mean y)^2

1 is perfect, 0 is the score of the scored samples' mean, and there is no lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["coefficient_of_determination", "mean_absolute_errors"]

_NO_NUMBER = 1e3  # standard deviations, for a NaN or infinite output: a record holds only finite numbers


def coefficient_of_determination(answers: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    """Return R^2, at most 1, for outputs (N, C) and labels (N, C), NaN if unknown.

    A number that is the same in all scored samples is left out. An output that is not finite counts as a thousand
    standard deviations away. Raises ValueError if shapes don't match or no number is left.
    """
    from sklearn.metrics import r2_score  # scikit-learn takes a second to import

    true, predicted = _columns(answers, labels)
    found = [
        r2_score(one, other) for one, other in zip(true, predicted, strict=True) if len(one) > 1 and np.ptp(one) > 0
    ]
    if not found:
        raise ValueError("there is nothing to score: every number is the same in all samples")
    return float(np.mean(found))


def mean_absolute_errors(answers: NDArray[np.floating], labels: NDArray[np.floating]) -> list[float]:
    """Return the mean absolute error of each number (C,), in its own units; NaN without samples. Raises as above."""
    pairs = zip(*_columns(answers, labels), strict=True)
    return [float(np.abs(one - other).mean()) if len(one) else float("nan") for one, other in pairs]


def _columns(
    answers: NDArray[np.floating], labels: NDArray[np.floating]
) -> tuple[Sequence[NDArray[np.float64]], Sequence[NDArray[np.float64]]]:
    """Return the known labels of each number, and the outputs for them."""
    if answers.shape != labels.shape or labels.ndim != 2:
        raise ValueError(f"answers {answers.shape} don't match labels {labels.shape}: (N, numbers) expected, both")
    true, predicted = [], []
    for own, other in zip(labels.T.astype(np.float64), answers.T.astype(np.float64), strict=True):
        known = ~np.isnan(own)
        one, two = own[known], other[known]
        far = one + _NO_NUMBER * (one.std() if len(one) else 1.0)
        true.append(one)
        predicted.append(np.where(np.isfinite(two), two, far))
    return true, predicted
