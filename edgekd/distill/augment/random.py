"""Random numbers by counting: a number depends on (seed, stream, sample) alone, not on what was drawn before.

SplitMix64's output function (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") is used as
a hash; it is exact in uint64, so every machine draws the same.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["choices", "random_bits"]

_GAMMA = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def random_bits(seed: int, stream: str, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits a sample (N,). Different streams of one seed are independent of each other."""
    key = _mixed(np.array([(seed & _MASK) ^ (zlib.crc32(stream.encode()) * _GAMMA & _MASK)], np.uint64))
    return _mixed(key ^ _mixed(indices.astype(np.uint64)))


def choices(seed: int, stream: str, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """One of 0..count-1 a sample (N,), evenly (to within count / 2^32)."""
    high = random_bits(seed, stream, indices) >> np.uint64(32)
    return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = values + np.uint64(_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)
