"""Wire format of protocol buffers, as far as needed to find an ONNX file's fields without a runtime or its schema."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

__all__ = ["NoProtobuf", "fields"]


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
