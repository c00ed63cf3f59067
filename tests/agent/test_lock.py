"""What whoever holds the lock removes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from edgekd.agent.lock import tidy

OLD_S = 8 * 24 * 3600


def lay(place: Path, age_s: float) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"x")
    os.utime(place, (time.time() - age_s,) * 2)
    return place


def test_what_was_not_used_for_a_week_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("blobs/a/data.onnx", "agent/1.pyz", "agent/2.pyz.0123abcd", "tools/3")
    gone = [lay(tmp_path / name, OLD_S) for name in names]
    kept = [lay(tmp_path / name.replace("/", "/new-", 1), OLD_S - 2 * 24 * 3600) for name in names]
    running = lay(tmp_path / "agent/running.pyz", OLD_S)  # on a board whose clock has just been set
    env = lay(tmp_path / "env/bin/python", OLD_S)
    monkeypatch.setattr(sys, "argv", [str(running)])
    tidy(str(tmp_path))
    assert [path for path in gone if path.exists()] == []
    assert [path for path in (*kept, running, env) if not path.exists()] == []
    assert not (tmp_path / "blobs/a").exists()


def test_sessions_of_before_go(tmp_path: Path) -> None:
    lay(tmp_path / "sessions/0123/1", 0.0)
    tidy(str(tmp_path))
    assert list((tmp_path / "sessions").iterdir()) == []


def test_what_has_just_gone_or_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(lay(tmp_path / "running.pyz", 0.0))])
    for room in ("agent", "tools", "blobs/a"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "0").symlink_to(tmp_path / "gone")
    kept = lay(tmp_path / "agent/1/file", OLD_S).parent  # a folder can't be removed as a file is
    os.utime(kept, (time.time() - OLD_S,) * 2)
    old = lay(tmp_path / "tools/2", OLD_S)
    tidy(str(tmp_path))
    assert kept.exists()
    assert not old.exists()
