"""Peak memory follows what this process takes from here on."""

from __future__ import annotations

from array import array

import pytest

from edgekd.agent import memory, timing
from edgekd.agent.worker import Worker


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


@pytest.mark.parametrize("missing", ["VmHWM", "VmRSS", "the reset"])
def test_memory_that_the_kernel_does_not_report_is_not_zero(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    sizes = {name: 1 << 20 for name in ("VmHWM", "VmRSS", "VmData") if name != missing}
    monkeypatch.setattr(memory, "status_bytes", lambda: sizes)
    monkeypatch.setattr(memory, "reset_peak", lambda: missing != "the reset")
    worker = Worker(lambda message: None)
    limits = {"memory_limit_bytes": 0, "memory_total_bytes": 0}
    worker.open({"op": "open", "threads": 1, "runtime": "null", "provider": "none", **limits})
    worker.rounds = [timing.Round(array("q", [1000]), array("d"), 0)]
    sample = worker.finish({})
    assert sample["memory_model_bytes"] is None
    assert sample["memory_process_bytes"] == (None if missing == "VmHWM" else 1 << 20)
