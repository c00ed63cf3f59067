"""Freed memory stays with the process while a training wants it, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

_SCRIPT = """
    import ctypes, resource
    import torch
    from edgekd.distill.memory import kept_memory

    def round_of_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            tensors = [torch.ones(1 << 20) for _ in range(32)]  # 128 MiB in pieces of 4
            del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def resident_mib():
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize() >> 20

    round_of_faults()
    outside = round_of_faults()
    with kept_memory():
        round_of_faults()
        inside, held = round_of_faults(), resident_mib()
    print(outside, inside, held, resident_mib(), hasattr(ctypes.CDLL(None), "mallopt"))
"""


def run(**environment: str) -> tuple[int, int, int, int]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT)],
        check=True,
        capture_output=True,
        text=True,
        env={**bare, **environment},
    )
    outside, inside, held, after, glibc = done.stdout.split()
    if glibc != "True":
        pytest.skip("the allocator is not glibc's")
    return int(outside), int(inside), int(held), int(after)


def test_pages_are_touched_once_and_given_back_at_the_end() -> None:
    outside, inside, held, after = run()
    assert outside > 50_000  # 4 times 32,768 pages
    assert inside < outside / 20
    assert after < held - 100


def test_what_a_person_set_up_is_left_alone() -> None:
    outside, inside, _, _ = run(MALLOC_ARENA_MAX="4")
    assert inside > outside / 2
