"""Memory-mapped arrays in files: a training set may be larger than memory.

A page that was read counts as this process's memory until it is released (`release`); the system keeps it while it has
room, so reading it again costs little.
"""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray
from platformdirs import user_cache_path

from edgekd.errors import MissingError
from edgekd.units import format_bytes

__all__ = ["gathered", "map_array", "release", "require_room"]

_IN_MEMORY = 256 * 1024**2

_open: WeakSet[mmap.mmap] = WeakSet()


def map_array(file: Path | IO[bytes], dtype: DTypeLike, shape: Sequence[int], offset: int = 0) -> NDArray[Any]:
    """Map an array in a file, read-only."""
    array = np.memmap(file, dtype, mode="r", offset=offset, shape=tuple(shape))
    _open.add(cast(Any, array)._mmap)
    return array


def release() -> None:
    """Release the pages of all mapped arrays. Call it after each step of a pass over a large one."""
    for each in list(_open):
        each.madvise(mmap.MADV_DONTNEED)


def gathered(parts: Iterable[NDArray[Any]], dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
    """Concatenate parts to ``shape``: in memory up to 256 MiB, else in an unnamed file deleted with the array.

    Raises MissingError if the disk is too small or can't be written to.
    """
    size, done = math.prod(shape) * np.dtype(dtype).itemsize, 0
    if size <= _IN_MEMORY:
        whole = np.empty(tuple(shape), dtype)
        for part in parts:
            whole[done : done + len(part)] = part
            done += len(part)
        return whole
    folder = user_cache_path("edgekd")
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        require_room(folder, size)
        stream = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed below
    with stream:
        for part in parts:
            with _writing_to(folder):
                _write_all(stream, np.ascontiguousarray(part, dtype).data.cast("B"))
        return map_array(stream, dtype, shape)


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MissingError(
            f"samples can't be written to {folder}: {error.strerror}",
            "free some space, or set XDG_CACHE_HOME to a folder that can be written to",
        ) from error


def _write_all(stream: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[stream.write(data) :]


def require_room(folder: Path, size: int) -> None:
    """Raise MissingError if a folder's disk has no room for so many bytes of samples."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MissingError(
            f"the samples take {format_bytes(size)}, and {folder} has {format_bytes(free)} left",
            "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
