"""Several inputs of one model, packed: a raw sample is all their values in one row of float32.

Splits, training, calibration and references handle packed samples (N, values); models and files take named inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from edgekd.errors import ConfigurationError
from edgekd.records import Record

__all__ = ["NamedInput", "blank_packed", "named_input", "pack", "packed_inputs", "random_packed", "spans", "unpack"]

_EXACT = 2**24  # whole numbers below it are exact in float32


class NamedInput(Record):
    """One of several inputs, without its batch axis. ``name`` is the parameter of the model's ``forward``.

    int32 values are ids from 0 to ``highest``: float32 holds them exactly.
    """

    name: Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32", "int32"] = "float32"
    highest: Annotated[int, Field(ge=0, lt=_EXACT)] = 1  # of int32

    @property
    def size(self) -> int:
        """Number of values of a sample."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {' x '.join(map(str, self.shape))} {self.dtype}"


def spans(inputs: Sequence[NamedInput]) -> Iterator[tuple[NamedInput, int, int]]:
    """Yield each input with its values in a packed sample: the first, and the one behind the last."""
    end = 0
    for one in inputs:
        start, end = end, end + one.size
        yield one, start, end


def pack(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Pack arrays (N, ...), one an input, as (N, values)."""
    return np.concatenate([array.reshape(len(array), -1).astype(np.float32) for array in arrays], axis=1)


def unpack(inputs: Sequence[NamedInput], packed: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the inputs (N, *shape) of packed samples, each of its own type."""
    return [
        np.ascontiguousarray(packed[:, start:end].reshape(len(packed), *one.shape), dtype=one.dtype)
        for one, start, end in spans(inputs)
    ]


def named_input(name: str, array: NDArray[Any], where: str) -> NamedInput:
    """Return the input that an array (N, ...) is: whole numbers are int32 ids, floats and uint8 float32.

    Raises ConfigurationError for other arrays.
    """
    if not name.isidentifier():
        raise ConfigurationError.one(
            f"{where}: `{name}` is no name of an input", "name it as the parameter of the model's forward"
        )
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
        return NamedInput(name=name, shape=array.shape[1:], dtype="int32" if ids else "float32")
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest >= _EXACT:
        raise ConfigurationError.one(
            f"{where}: `{name}` has whole numbers from {lowest} to {highest}",
            f"give ids from 0, below {_EXACT}, or other numbers as float32",
        )
    return NamedInput(name=name, shape=array.shape[1:], dtype="int32", highest=highest)


def packed_inputs(arrays: Mapping[str, NDArray[Any]], where: str) -> tuple[tuple[NamedInput, ...], NDArray[np.float32]]:
    """Return the inputs that arrays (N, ...) are, and their samples, packed.

    Raises ConfigurationError for fewer than two, or if they differ in length.
    """
    if len(arrays) < 2:
        raise ConfigurationError.one(
            f"{where}: a mapping of {len(arrays)} arrays, and several inputs are two or more",
            "give the array itself for one input",
        )
    (first, one), *others = arrays.items()
    for name, array in others:
        if len(array) != len(one):
            raise ConfigurationError.one(
                f"{where}: `{name}` has {len(array)} samples, and `{first}` has {len(one)}",
                "give each sample all its inputs",
            )
    inputs = tuple(named_input(name, array, where) for name, array in arrays.items())
    return inputs, pack(list(arrays.values()))


def blank_packed(inputs: Sequence[NamedInput], count: int) -> NDArray[np.float32]:
    """Return packed samples (count, values) of zeros, and of ones where an input is a mask or ids."""
    values = [np.full((count, one.size), min(1, one.highest) if one.dtype == "int32" else 0) for one in inputs]
    return pack(values)


def random_packed(inputs: Sequence[NamedInput], seed: int, count: int) -> NDArray[np.float32]:
    """Return packed samples (count, values): standard normal, or uniform ids. No mask is empty."""
    drawn, arrays = np.random.default_rng(seed), list[NDArray[Any]]()
    for one in inputs:
        if one.dtype == "float32":
            arrays.append(drawn.standard_normal((count, one.size)))
            continue
        arrays.append(drawn.integers(0, one.highest, (count, one.size), endpoint=True))
        arrays[-1][:, 0] = np.maximum(arrays[-1][:, 0], min(1, one.highest))
    return pack(arrays)
