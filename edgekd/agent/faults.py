"""Faults of what surrounds a model: a full disk, too many open files, a path that can't be opened, want of memory."""

from __future__ import annotations

import errno
import os
from typing import Iterator, Optional

__all__ = ["MEMORY_WORDS", "Fault", "is_fault", "is_shortage", "is_want_of_memory"]

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG)
# what C++ says of a stream that could not be written has no number
_WORDS = (*(os.strerror(number) for number in _NUMBERS), "iostream error")

MEMORY_WORDS = (
    os.strerror(errno.ENOMEM),
    "can't allocate memory",
    "Failed to allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "MemoryError",
)
"""What converters, runtimes and allocators say when memory runs out."""


class Fault(RuntimeError):
    """The work could not be done here and now, whatever the model: it says nothing of it, and may work later."""


def is_fault(error: BaseException) -> bool:
    """True where an error, or what caused it, is of the system: any refusal of it but one for want of memory."""
    refused = (isinstance(cause, OSError) and cause.errno not in (None, errno.ENOMEM) for cause in _chain(error))
    return is_shortage(error) or any(refused)


def is_shortage(error: BaseException) -> bool:
    """True where the disk is full or broken, or files can't be opened for their number, whatever their names.

    Libraries hand such refusals on as errors of their own, so their words count too.
    """
    return any(
        isinstance(cause, Fault)
        or (isinstance(cause, OSError) and cause.errno in _NUMBERS)
        or any(word in str(cause) for word in _WORDS)
        for cause in _chain(error)
    )


def is_want_of_memory(error: BaseException) -> bool:
    """True where memory ran out, by an error, by what caused it, or by the words of either."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or any(word in str(cause) for word in MEMORY_WORDS)
        for cause in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: Optional[BaseException] = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
