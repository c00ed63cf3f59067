"""Non-negative least squares, of which predictors of latency and memory are made (`scipy.optimize.nnls`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["least_squares"]

Floats = NDArray[np.float64]


def least_squares(design: Floats, found: Floats) -> Floats:
    """Return the coefficients of the columns (rows, columns). Columns are scaled to one length meanwhile."""
    lengths = np.linalg.norm(design, axis=0)
    lengths[lengths == 0] = 1.0
    solved, _ = nnls(design / lengths, found)
    answer: Floats = solved / lengths
    return answer
