from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgekd.temporary import prefix, sweep_temporary


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, new, foreign = (tmp_path / name for name in (f"edgekd-{ended.pid}-a1", f"edgekd-{ended.pid}-b2", "edgekd-x"))
    for folder in (left, new, foreign):
        folder.mkdir()
        (folder / "file").touch()
    for folder in (left, foreign):
        os.utime(folder, (0, 0))
    mine = Path(tempfile.mkdtemp(prefix=prefix()))
    os.utime(mine, (0, 0))
    sweep_temporary()
    assert sorted(tmp_path.iterdir()) == sorted([mine, new, foreign])
