"""The device's lock: exclusive, named after its holder, and free when the holder dies."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.devices.lock import DeviceLock
from edgekd.errors import DeviceBusy


def test_the_second_error_names_who_holds_it(tmp_path: Path) -> None:
    first = DeviceLock("board", tmp_path)
    with pytest.raises(DeviceBusy, match=f"board is in use by process {os.getpid()}"):
        DeviceLock("board", tmp_path)
    DeviceLock("another board", tmp_path).release()
    first.release()
    first.release()
    DeviceLock("board", tmp_path).release()


@pytest.mark.slow
def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from edgekd.devices.lock import DeviceLock;"
        "DeviceLock('board', pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=False)
    assert ended.returncode == -9
    DeviceLock("board", tmp_path).release()


def test_a_device_knows_this_computer_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def token(device: str, folder: Path = tmp_path) -> str:
        lock = DeviceLock(device, folder)
        try:
            return lock.token()
        finally:
            lock.release()

    first = token("board")
    assert token("board") == first
    assert len({first, token("another board"), token("board", tmp_path / "of another person")}) == 3
    (tmp_path / "board.token").write_bytes(b"torn\xff")
    assert token("board") not in ("", first)
    assert token("board") == token("board")
    here = token("board")
    monkeypatch.setattr(platform, "node", lambda: "a computer with the same home folder")
    assert token("board") != here


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_forked_child_does_not_hold_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    name = f"forked-{os.getpid()}"
    program = (
        "import os, pathlib, sys, time; from edgekd.devices.lock import DeviceLock;"
        f"lock = DeviceLock({name!r}, pathlib.Path(sys.argv[1]), of_machine=True);"
        "child = os.fork() or [os.close(1), os.close(2), time.sleep(60)]; print(child, flush=True); os._exit(0)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "one")]
    child = int(subprocess.run(words, timeout=60, check=True, capture_output=True, text=True).stdout)
    try:
        DeviceLock(name, tmp_path / "another", of_machine=True).release()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_machine_is_locked_for_all_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    name = f"machine-{os.getpid()}"
    first = DeviceLock(name, tmp_path / "one", of_machine=True)
    for _ in range(2):
        with pytest.raises(DeviceBusy, match=f"in use by process {os.getpid()}"):
            DeviceLock(name, tmp_path / "another", of_machine=True)
    first.release()
    first.release()
    DeviceLock(name, tmp_path / "another", of_machine=True).release()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = [DeviceLock(name, tmp_path / folder, of_machine=True) for folder in ("one", "another")]
    for lock in own:
        lock.release()
