"""Several inputs of one model, packed: a raw sample is all their values in one row of float32.

Splits, training, calibration and references handle packed samples (N, values); models and files take the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from edgekd.errors import ConfigurationError
from edgekd.records import Record

__all__ = ["InputPart", "pack", "packed_parts", "part_of", "random_parts", "unpack"]

_EXACT = 2**24  # whole numbers below it are exact in float32


class InputPart(Record):
    """One of several inputs, without its batch axis. ``name`` is the parameter of the model's ``forward``.

    int32 values are ids from 0 to ``highest``; float32 holds them exactly up to 2^24.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32", "int32"] = "float32"
    highest: NonNegativeInt = 1  # of int32

    @property
    def size(self) -> int:
        """Number of values of a sample."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {' x '.join(map(str, self.shape))} {self.dtype}"


def pack(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Pack arrays (N, ...), one an input, as (N, values)."""
    return np.concatenate([array.reshape(len(array), -1).astype(np.float32) for array in arrays], axis=1)


def unpack(parts: Sequence[InputPart], packed: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the inputs (N, *shape) of packed samples, each of its own type."""
    ends = np.cumsum([part.size for part in parts])[:-1]
    return [
        np.ascontiguousarray(values.reshape(len(packed), *part.shape), dtype=part.dtype)
        for part, values in zip(parts, np.split(packed, ends, axis=1), strict=True)
    ]


def part_of(name: str, array: NDArray[Any], where: str) -> InputPart:
    """Return the input that an array (N, ...) is: whole numbers are int32 ids, floats and uint8 float32.

    Raises ConfigurationError for other arrays.
    """
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise ConfigurationError.one(
            f"{where}: `{name}` is {array.shape}, and (N, ...) is expected", "of one number a sample give (N, 1)"
        )
    ids = array.dtype.kind in "iu" and array.dtype != np.uint8
    if not ids and array.dtype.kind != "f" and array.dtype != np.uint8:
        raise ConfigurationError.one(
            f"{where}: `{name}` is {array.dtype}", "give float32, or whole numbers such as ids and masks"
        )
    if not ids or not array.size:
        return InputPart(name=name, shape=array.shape[1:], dtype="int32" if ids else "float32")
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest >= _EXACT:
        raise ConfigurationError.one(
            f"{where}: `{name}` has whole numbers from {lowest} to {highest}",
            f"ids below {_EXACT} are expected, from 0",
        )
    return InputPart(name=name, shape=array.shape[1:], dtype="int32", highest=highest)


def packed_parts(arrays: Mapping[str, NDArray[Any]], where: str) -> tuple[tuple[InputPart, ...], NDArray[np.float32]]:
    """Return the inputs that arrays (N, ...) are, and their samples, packed. Raises ConfigurationError if they differ
    in length.
    """
    parts = tuple(part_of(name, array, where) for name, array in arrays.items())
    (first, one), *others = arrays.items()
    for name, array in others:
        if len(array) != len(one):
            raise ConfigurationError.one(
                f"{where}: `{name}` has {len(array)} samples, and `{first}` has {len(one)}",
                "give each sample all its inputs",
            )
    return parts, pack(list(arrays.values()))


def random_parts(parts: Sequence[InputPart], seed: int, count: int) -> NDArray[np.float32]:
    """Return packed samples (count, values): standard normal, or uniform ids."""
    drawn = np.random.default_rng(seed)
    return pack(
        [
            drawn.standard_normal((count, *part.shape))
            if part.dtype == "float32"
            else drawn.integers(0, part.highest, (count, *part.shape), endpoint=True)
            for part in parts
        ]
    )
