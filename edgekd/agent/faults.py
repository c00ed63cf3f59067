"""Faults of what surrounds a model: a full disk, too many open files, a path that can't be opened."""

from __future__ import annotations

import errno
import os
from typing import Optional

__all__ = ["Fault", "is_fault"]

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG)
# what C++ says of a stream that could not be written has no number
_WORDS = (*(os.strerror(number) for number in _NUMBERS), "iostream error")


class Fault(RuntimeError):
    """The work could not be done here and now, whatever the model: it says nothing of it, and may work later."""


def is_fault(error: BaseException) -> bool:
    """Whether an error, or what caused it, is of the system: any refusal of it but one for want of memory.

    Libraries hand such refusals on as errors of their own, so their words count too.
    """
    cause: Optional[BaseException] = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOMEM):
            return True
        if isinstance(cause, Fault) or any(word in str(cause) for word in _WORDS):
            return True
        cause = cause.__cause__
    return False
