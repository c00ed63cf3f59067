"""Arrays of a .npz file, memory-mapped if they are stored uncompressed (``numpy.savez``). Never pickle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.tasks.mapped import map_array

__all__ = ["array_names", "read_array"]

_BLOCK = 16 * 1024**2


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
        mapped = _mapped(path, name)
        if mapped is not None:
            return mapped
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name])
    except Exception as error:  # numpy's reader passes on errors of zip, zlib and damaged headers
        raise ConfigurationError.one(
            f"array `{name}` of {path} can't be read: {error}", "write it again; only plain arrays are read"
        ) from error


def _mapped(path: Path, name: str) -> NDArray[Any] | None:
    """Return the array mapped from the file, or None if it is compressed or of a type that can't be mapped."""
    with ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != ZIP_STORED:
            return None
        with path.open("rb") as stream:
            # the name in the local header may be padded otherwise than in the directory: its own lengths count
            stream.seek(info.header_offset)
            header = stream.read(30)
            name_length, extra_length = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            stream.seek(info.header_offset + 30 + name_length + extra_length)
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                return None
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(stream)
            offset = stream.tell()
        if dtype.hasobject or fortran or 0 in shape or not shape:
            return None  # numpy's own reader refuses, or copies
    status = path.stat()
    _check_sum(path, info.filename, status.st_mtime_ns, status.st_size)
    return map_array(path, dtype, shape, offset)


@cache
def _check_sum(path: Path, member: str, _changed_ns: int, _size: int) -> None:
    """Verify a member's zip checksum once, since mapping doesn't check it. Raises BadZipFile."""
    with ZipFile(path) as archive, archive.open(member) as stream:
        while stream.read(_BLOCK):
            pass
