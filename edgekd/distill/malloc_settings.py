"""Memory allocator setting: freed memory stays with the process between training steps.

A step frees and allocates the same large tensors again and again. glibc returns blocks above a threshold to the system
each time, and page faults on the new pages take a fifth of the time of a step that compares activations. PyTorch caches
memory on an accelerator but not on a CPU, so glibc's thresholds are raised.
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
    """Keep freed memory in the process inside this context; release it afterwards.

    Does nothing if the allocator is not glibc's, or if a person has configured it (`MALLOC_*`, `GLIBC_TUNABLES`).
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
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)  # the value that glibc's own heuristic reaches
        library.malloc_trim(0)
