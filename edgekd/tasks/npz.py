"""Arrays of a .npz file. Never pickle.

Memory-mapped if they are stored uncompressed (``numpy.savez``); larger compressed ones from an unpacked copy on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.faults import is_shortage, is_want_of_memory
from edgekd.errors import ConfigurationError, MissingError, UnknownName
from edgekd.tasks.mapped import gathered, map_array

__all__ = ["array_layout", "array_names", "read_array"]

_BLOCK = 16 * 1024**2
_UNPACKED: WeakValueDictionary[tuple[Path, str, int, int], NDArray[Any]] = WeakValueDictionary()


def array_names(path: Path) -> Sequence[str]:
    """Return the names of the arrays in a file. Raises ConfigurationError for a file that isn't a .npz."""
    try:
        with ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, ValueError, NotImplementedError, BadZipFile) as error:
        raise ConfigurationError.one(
            f"{path} can't be read as .npz: {error}", "write it with numpy.savez(path, x_train=..., y_train=...)"
        ) from error


def read_array(path: Path, name: str) -> NDArray[Any]:
    """Return one array, read-only. Raises UnknownName if it is missing, ConfigurationError if it is damaged."""
    names = array_names(path)
    if name not in names:
        raise UnknownName("array", name, names, remedy=f"in {path}")
    try:
        large = _mapped(path, name) if _is_stored(path, name) else _unpacked(path, name)
        if large is not None:
            return large
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name])
    except Exception as error:  # numpy's reader passes on errors of zip, zlib and damaged headers
        if isinstance(error, MissingError) or is_shortage(error) or is_want_of_memory(error):
            raise  # the file is not to blame
        raise ConfigurationError.one(
            f"array `{name}` of {path} can't be read: {error}", "write it again; only plain arrays are read"
        ) from error


def array_layout(path: Path, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return an array's type and shape, from its header alone where that tells them. Raises as `read_array`."""
    if name in array_names(path):
        with suppress(Exception), ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            if (found := _layout_of(stream)) is not None:
                return found
    array = read_array(path, name)  # its errors say what is wrong
    return array.dtype, array.shape


def _is_stored(path: Path, name: str) -> bool:
    with ZipFile(path) as archive:
        return archive.getinfo(f"{name}.npy").compress_type == ZIP_STORED


def _mapped(path: Path, name: str) -> NDArray[Any] | None:
    """Return a stored array mapped from the file, or None if it is of a type that can't be mapped."""
    with ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        with path.open("rb") as stream:
            # the name in the local header may be padded otherwise than in the directory: its own lengths count
            stream.seek(info.header_offset)
            header = stream.read(30)
            name_length, extra_length = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            stream.seek(info.header_offset + 30 + name_length + extra_length)
            laid_out = _layout_of(stream)
            offset = stream.tell()
    if laid_out is None:
        return None
    dtype, shape = laid_out
    status = path.stat()
    _check_sum(path, info.filename, status.st_mtime_ns, status.st_size)
    return map_array(path, dtype, shape, offset)


def _unpacked(path: Path, name: str) -> NDArray[Any] | None:
    """Return a compressed array from an unnamed file if it is large, or None if it is of a type that can't be mapped.

    The file is shared by all who have the array. Raises MissingError if the disk is too small.
    """
    status = path.stat()
    key = (path.absolute(), name, status.st_mtime_ns, status.st_size)
    if key in _UNPACKED:
        return _UNPACKED[key]
    with ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        laid_out = _layout_of(stream)
        if laid_out is None:
            return None
        dtype, shape = laid_out
        array = gathered(_rows(stream, dtype, shape), dtype, shape)
    if isinstance(array, np.memmap):
        _UNPACKED[key] = array
    return array


def _rows(stream: IO[bytes], dtype: np.dtype[Any], shape: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield an array's rows from a stream, some at a time. Raises ValueError if it ends early."""
    row = math.prod(shape[1:]) * dtype.itemsize
    at_once = max(1, _BLOCK // max(1, row))
    for begin in range(0, shape[0], at_once):
        rows = min(at_once, shape[0] - begin)
        data = stream.read(rows * row)
        if len(data) != rows * row:
            raise ValueError(f"it ends after {begin + len(data) // max(1, row)} of {shape[0]} rows")
        yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])
    stream.read(1)  # at the end the checksum is compared


def _layout_of(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Read an array's header; return its type and shape, or None for one that numpy's own reader refuses or copies."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        return None
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(stream)
    return None if dtype.hasobject or fortran or 0 in shape or not shape else (dtype, shape)


@cache
def _check_sum(path: Path, member: str, _changed_ns: int, _size: int) -> None:
    """Verify a member's zip checksum once, since mapping doesn't check it. Raises BadZipFile."""
    with ZipFile(path) as archive, archive.open(member) as stream:
        while stream.read(_BLOCK):
            pass
