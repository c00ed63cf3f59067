"""Stretches of a large array that are read one after the other, bounded in bytes and not in samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks"]

_BYTES = 4 * 1024**2  # as float64 or int64 eight times as much


def blocks(array: NDArray[np.generic]) -> Iterator[slice]:
    """Slices of the first axis that cover it in order: 4 MiB each, a sample at least."""
    count = len(array)
    step = max(1, _BYTES * count // max(1, array.nbytes)) if count else 1
    for start in range(0, count, step):
        yield slice(start, start + step)
