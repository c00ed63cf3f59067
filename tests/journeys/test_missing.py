"""What is needed and isn't there: exit 4, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.devices.lock import DeviceLock

pytestmark = pytest.mark.journey


def test_a_runtime_that_is_not_installed(edgekd, without):
    edgekd.change("target.yaml", "onnxruntime/cpu", "onnxruntime/cpu, openvino/cpu")
    without("openvino")
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode == 4, done.stderr
    assert "target target allows openvino/cpu, and that runtime is not installed on this-computer" in done.stderr
    assert "see what is there: edgekd doctor" in " ".join(done.stderr.split())
    assert "epoch" not in done.stderr  # no teacher is trained for a search that can't begin
    assert not (edgekd.folder / "run").exists()


def test_a_runtime_that_is_broken(edgekd):
    """It is found, but can't be imported: no deployment runs, and the reason is the runtime's own."""
    edgekd.change("target.yaml", "onnxruntime/cpu", "openvino/cpu")
    edgekd.write("broken/openvino/__init__.py", "raise ImportError('libopenvino.so: cannot open shared object file')\n")
    edgekd.environment["PYTHONPATH"] = str(edgekd.folder / "broken")
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode == 4, done.stderr
    assert "libopenvino.so: cannot open shared object file" in done.stderr


def test_a_busy_device_names_who_holds_it(edgekd):
    lock = DeviceLock("this-computer", Path(edgekd.environment["XDG_CACHE_HOME"]) / "edgekd" / "locks")
    try:
        done = edgekd("search", "project.yaml", "--run", "run")
    finally:
        lock.release()
    assert done.returncode == 4, done.stderr
    assert "this-computer is in use by process" in done.stderr
    assert not (edgekd.folder / "run").exists()


def test_a_device_nothing_connects_to(edgekd):
    edgekd.change("target.yaml", "this-computer", "raspberry-pi-5")
    done = edgekd("search", "project.yaml")
    assert done.returncode == 4, done.stderr
    assert "raspberry-pi-5" in done.stderr
