"""External weights of an ONNX file: the files beside it that hold them, read from its bytes without any runtime.

A tensor whose ``data_location`` is EXTERNAL names its file under the key ``location``, relative to the model's folder
(onnx.proto, TensorProto, fields 13 and 14); fields are found by the wire format of protocol buffers. Files outside
the model's folder are refused, so that running a stranger's model reads no other files.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edgekd.errors import ConfigurationError, Place

__all__ = ["NoProtobuf", "external_files", "fields"]

_Fields = Mapping[int, str]
_TENSOR = "tensor"
_INSIDE: Mapping[str, _Fields] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Paths to tensors in a model: by message, the fields that lead to one (onnx.proto)."""

_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_KEY, _VALUE = 1, 2
_DEEPEST = 64  # graphs within graphs


def external_files(path: Path) -> tuple[Path, ...]:
    """External files that an ONNX file needs, in order of their names; none where it is no ONNX file.

    Raises ConfigurationError on one that is missing, or lies outside the model's folder; OSError.
    """
    if not path.stat().st_size:
        return ()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"location") < 0:
            return ()
        try:
            found = set(_locations(data, 0, len(data), "model", 0))
        except NoProtobuf:  # a runtime's message is better
            return ()
    return tuple(sorted({_beside(path, location) for location in sorted(found)}))


def _beside(path: Path, written: bytes) -> Path:
    location = written.decode("utf-8", "backslashreplace")
    inside = PurePosixPath(location)
    problem = ""
    if not location.isprintable() or "\\" in location or location != location.strip() or not inside.name:
        problem = f"its weights have a name that no file should have: {location[:80]!r}"
    elif inside.is_absolute() or ".." in inside.parts:
        problem = f"its weights `{location}` lie outside the model's folder"
    elif not (path.parent / inside).is_file():
        problem = f"its weights `{location}` are missing"
    elif not (path.parent / inside).resolve().is_relative_to(path.parent.resolve()):
        problem = f"its weights `{location}` are a link out of the model's folder"
    if problem:
        remedy = "put the model and the files of its weights into one folder, or export it as a single file"
        raise ConfigurationError.one(problem, remedy, Place(str(path)))
    return path.parent / inside


def _locations(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[bytes]:
    if message == _TENSOR:
        yield from _of_tensor(data, start, end)
        return
    if depth > _DEEPEST:
        raise NoProtobuf
    for number, value, begin, stop in fields(data, start, end):
        within = _INSIDE[message].get(number)
        if within is not None and value is None:
            yield from _locations(data, begin, stop, within, depth + 1)


def _of_tensor(data: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    external, entries = False, list[tuple[int, int]]()
    for number, value, begin, stop in fields(data, start, end):
        if number == _DATA_LOCATION:
            external = value == _EXTERNAL
        elif number == _EXTERNAL_DATA and value is None:
            entries.append((begin, stop))
    for begin, stop in entries if external else ():
        entry = {number: data[at:until] for number, value, at, until in fields(data, begin, stop) if value is None}
        if entry.get(_KEY) == b"location":
            yield entry.get(_VALUE, b"")


class NoProtobuf(Exception):
    """The bytes are no message."""


def fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | None, int, int]]:
    """Fields of a message: number, value where it is a whole number, and begin and end of its bytes.

    Raises NoProtobuf where a field doesn't end within the message.
    """
    while start < end:
        key, start = _varint(data, start, end)
        value, stop = None, start
        match key & 7:
            case 0:
                value, stop = _varint(data, start, end)
            case 1:
                stop = start + 8
            case 2:
                length, start = _varint(data, start, end)
                stop = start + length
            case 5:
                stop = start + 4
            case _:
                raise NoProtobuf
        if stop > end:
            raise NoProtobuf
        yield key >> 3, value, start, stop
        start = stop


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = 0
    for position in range(start, min(end, start + 10)):
        byte = data[position]
        value |= (byte & 0x7F) << (7 * (position - start))
        if not byte & 0x80:
            return value, position + 1
    raise NoProtobuf
