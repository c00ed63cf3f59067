"""Fast cores, slow cores, and those by number."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.agent.cores import CoresRefused, chosen


def written(root: Path, name: str, values: list[int]) -> str:
    for core, value in enumerate(values):
        path = root / f"sys/devices/system/cpu/cpu{core}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return str(root)


def test_a_phones_fast_and_slow_cores(tmp_path: Path) -> None:
    root = written(tmp_path, "cpu_capacity", [250, 250, 700, 700, 1024])
    assert chosen("fast", [0, 1, 2, 3, 4], root) == [4]
    assert chosen("slow", [0, 1, 2, 3, 4], root) == [0, 1]
    assert chosen("fast", [0, 1, 2, 3], root) == [2, 3]  # of those that are allowed


def test_by_their_highest_clock_where_no_capacity_is_reported(tmp_path: Path) -> None:
    root = written(tmp_path, "cpufreq/cpuinfo_max_freq", [1800000, 2400000])
    assert chosen("fast", [0, 1], root) == [1]


def test_by_number(tmp_path: Path) -> None:
    assert chosen("3,1,1", [0, 1, 2, 3], str(tmp_path)) == [1, 3]
    with pytest.raises(CoresRefused, match="core 7: there are 0,1"):
        chosen("1,7", [0, 1], str(tmp_path))
    for wrong in ("", "quick", "1-3", "0x1", "1;2"):
        with pytest.raises(CoresRefused, match="numbers expected"):
            chosen(wrong, [0, 1], str(tmp_path))


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CoresRefused, match="does not tell how fast"):
        chosen("fast", [0, 1], str(tmp_path))
    with pytest.raises(CoresRefused, match="all of them are alike"):
        chosen("slow", [0, 1], written(tmp_path, "cpu_capacity", [1024, 1024]))
