"""Blocks of a large array for sequential reading, of bounded size in bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.mapped import release

__all__ = ["blocks"]

_BYTES = 4 * 1024**2  # as float64 or int64 eight times as much


def blocks(array: NDArray[np.generic], sample_bytes: int | None = None) -> Iterator[slice]:
    """Yield slices that cover the first axis in order: 4 MiB each, at least one sample. Pages read are released.

    ``sample_bytes`` is for arrays that stand for samples of another size, such as their indices.
    """
    count = len(array)
    size = array[:1].nbytes if sample_bytes is None else sample_bytes
    step = max(1, _BYTES // max(1, size))
    for start in range(0, count, step):
        yield slice(start, start + step)
        release()
