"""Freed memory stays with the process while a training wants it, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

_SCRIPT = """
    import ctypes, resource
    from edgekd.distill.malloc_settings import kept_memory

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        raise SystemExit("no glibc")

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

    libc.mallinfo2.restype = Info
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def resident_mib():
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize() >> 20

    with kept_memory():
        before = libc.mallinfo2().hblks
        blocks = [libc.malloc(30 << 20) for _ in range(8)]
        mapped = libc.mallinfo2().hblks - before
        for block in blocks:
            ctypes.memset(block, 1, 30 << 20)
        used = resident_mib()
        for block in blocks:
            libc.free(block)
        held = resident_mib()
    print(mapped, used, held, resident_mib())
"""


def run(**environment: str) -> list[int]:
    """Blocks that came straight from the system; MiB resident while they are used, when freed, and at the end."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT)],
        check=False,
        capture_output=True,
        text=True,
        env={**bare, **environment},
    )
    if "no glibc" in done.stderr:
        pytest.skip("the allocator is not glibc's, or an old one")
    return [int(number) for number in done.stdout.split()]


@pytest.mark.slow
def test_what_is_freed_is_kept_until_the_end() -> None:
    mapped, used, held, after = run()
    assert mapped == 0
    assert held > used - 10
    assert after < used - 200


@pytest.mark.slow
def test_what_a_person_set_up_is_left_alone() -> None:
    mapped, used, held, _ = run(MALLOC_ARENA_MAX="4")
    assert mapped == 8
    assert held < used - 200
