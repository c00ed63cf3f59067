"""Memory of a training is kept between its steps.

A step frees and asks for the same large tensors again and again. glibc gives blocks above a threshold back to the
system each time, and the fresh pages that it gets for them have to be touched first: a fifth of the time of a step
that compares activations. PyTorch keeps memory on an accelerator and not on a CPU, so the allocator is told to.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_MMAP_THRESHOLD = 32 << 20  # all that glibc takes on 64 bits: larger tensors still come from the system
_NEVER = 2**31 - 1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside this, freed memory stays with the process; afterwards what is free is given back.

    Does nothing where the allocator is not glibc's, or where a person has set it up (`MALLOC_*`, `GLIBC_TUNABLES`).
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)  # what glibc itself would come to
        library.malloc_trim(0)
