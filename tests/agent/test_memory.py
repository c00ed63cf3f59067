"""Peak memory follows what this process takes from here on."""

from __future__ import annotations

import pytest

from edgekd.agent import memory


def test_the_peak_starts_anew() -> None:
    block = bytearray(b"\1") * 64_000_000
    high = memory.status_bytes()["VmHWM"]
    del block
    if not memory.reset_peak():
        pytest.skip("this kernel lets no process reset its peak")
    low = memory.status_bytes()["VmHWM"]
    assert low < high - 32_000_000
    again = bytearray(b"\1") * 64_000_000
    assert memory.status_bytes()["VmHWM"] > low + 32_000_000
    assert len(again) == 64_000_000
