"""Splits by content hash, so that every machine agrees and duplicates stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.records import Digest
from edgekd.tasks.blocks import blocks

__all__ = ["carve", "content_keys", "digest_arrays", "spread"]


def content_keys(inputs: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each sample (N, ...) in C order: equal samples have equal keys.

    Among 60,000 different samples, the probability that two share a key is about one in ten thousand million.
    """
    keys = np.empty(len(inputs), np.uint64)
    for block in blocks(inputs):
        for at, sample in enumerate(_portable(inputs[block]), block.start):
            keys[at] = int.from_bytes(hashlib.blake2b(sample.data, digest_size=8).digest(), "big")
    return keys


def carve(keys: NDArray[np.uint64], labels: NDArray[np.int64], counts: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return parts of about ``counts`` samples each, and the rest as the last part; indices are ascending.

    Classes have the same shares in every part. Samples with one key stay together, so a part may have a few more than
    asked. The parts do not depend on the order of samples.
    """
    unique, group_of = np.unique(keys, return_inverse=True)
    sizes = np.bincount(group_of, minlength=len(unique))
    classes = np.full(len(unique), np.iinfo(np.int64).max)
    np.minimum.at(classes, group_of, labels)  # twins with different labels: one of them must speak for the group
    # each class is laid out evenly over 0..1 in key order, so that any stretch has all classes in proportion; where
    # classes are equally frequent, keys and not class numbers decide the order
    position = np.empty(len(unique))
    for name in np.unique(classes):
        members = np.flatnonzero(classes == name)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((unique, position))
    ends = np.cumsum(sizes[order])
    parts: list[NDArray[np.int64]] = []
    start, taken = 0, 0
    for count in counts:
        stop = start + int(np.searchsorted(ends[start:], taken + count)) + 1 if count else start
        stop = min(stop, len(order))
        parts.append(_members(group_of, order[start:stop]))
        taken = int(ends[stop - 1]) if stop else 0
        start = stop
    return [*parts, _members(group_of, order[start:])]


def spread(available: int, wanted: int) -> NDArray[np.intp]:
    """Return the indices of ``wanted`` of the available samples, evenly spaced from first to last, ascending.

    Samples of a folder are ordered by class: the first few are all of one.
    """
    return np.linspace(0, available - 1, min(wanted, available)).round().astype(np.intp)


def digest_arrays(*arrays: NDArray[np.generic]) -> Digest:
    """Return the SHA-256 of shapes, types and contents, read in blocks."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.newbyteorder('<').str}{array.shape}".encode())
        for block in blocks(array):
            digest.update(_portable(array[block]).data)
    return digest.hexdigest()


def _members(group_of: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(group_of, groups))


def _portable(block: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
