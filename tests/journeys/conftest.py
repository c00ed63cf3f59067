"""Whole commands, as a person types them: subprocesses on the real runtimes, with a small project and an own cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekd.devices._protocol import Fingerprint

PROJECT = """\
schema: edgekd.project/1
task: {kind: digits, train_limit: 256}
teacher: {kind: train, width: 16, epochs: 2}
student: {family: resnet, stages: 2, space: {width: [8, 16], depth: [1, 1]}}
target: target.yaml
recipe:
  - distill: {loss: {kd: {temperature: 4, weight: 0.5}}, epochs: 2, batch_size: 32, ema: 0, precision: float32}
  - quantize: {precision: int8}
search: {budget: 1 h, trials: 2, finalists: 1, anchors: 1, batch: 2, accuracy: {short: {epochs: 1}}}
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets:
  latency: {p95: 100 ms}
  size: {file: 256 KiB}
"""


class Shell:
    """A folder with a project, and ``edgekd`` in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self.begin: list[str] = [sys.executable, "-m", "edgekd.cli.main"]
        self.write("project.yaml", PROJECT)
        self.write("target.yaml", TARGET)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, which always comes, and never with a traceback."""
        done = subprocess.run(
            [*self.begin, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert done.returncode != 1, done.stderr  # 1 is a bug of ours
        return done

    def interrupted(self, line: str, times: int, *arguments: str) -> tuple[int, str]:
        """A command that gets Ctrl-C, so many times, once a line with this beginning was seen. Exit code and stderr."""
        process = subprocess.Popen(
            [*self.begin, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        said, seen, heard = list[str](), threading.Event(), threading.Event()

        def listen() -> None:
            assert process.stderr is not None
            for one in process.stderr:
                said.append(one)
                if one.startswith(line):
                    seen.set()
                if one.startswith("stopping after the current write"):
                    heard.set()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            assert seen.wait(600), "".join(said)
            for _ in range(times):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everything in the foreground gets it
                heard.wait(30)  # a second one that arrives before the first was taken up is the first again
            process.wait(200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            listener.join()
        return process.returncode, "".join(said)


def assert_every_file_agrees(certificate: Mapping[str, Any]) -> None:
    """Every file of the bundle answers as the student on every sample it was checked with.

    Only an int8 file for OpenVINO may be missing, where the processor's 8-bit products would saturate and so it is
    refused with that reason.
    """
    missing = [other for other in certificate["others"] if other["parity"] is None]
    for other in missing:
        assert other["format"] == "openvino", other["detail"]
        assert Fingerprint.model_validate(certificate["fingerprint"]).saturates_int8, other["detail"]
        assert "8-bit weights saturate in OpenVINO" in other["detail"]
    made = [other["parity"] for other in certificate["others"] if other not in missing]
    parities = [certificate["parity"], *made]
    assert all(parity["agree"] == parity["samples"] for parity in parities), parities


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """One cache for the session, so that the teacher is trained once; nothing of a person's own is touched."""
    place = tmp_path_factory.mktemp("journeys")
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_DATA_HOME": str(place / "data"),
        "XDG_STATE_HOME": str(place / "state"),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


@pytest.fixture
def edgekd(tmp_path: Path, environment: Mapping[str, str]) -> Shell:
    return Shell(tmp_path, environment)


@pytest.fixture
def without(edgekd: Shell) -> Callable[[str], None]:
    """Make a module impossible to import in every process of the command, as if it weren't installed."""

    def hide(module: str) -> None:
        # Python's own way to say "there is none": import and find_spec both find nothing
        edgekd.write("hidden/sitecustomize.py", f"import sys\nsys.modules[{module!r}] = None\n")
        edgekd.environment["PYTHONPATH"] = str(edgekd.folder / "hidden")

    return hide
