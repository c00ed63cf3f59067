"""Whole commands, as a person types them: subprocesses on the real runtimes, with a small project and an own cache."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

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
search: {budget: 1 h, trials: 2, finalists: 1, reference_archs: 1, batch: 2, accuracy: {short: {epochs: 1}}}
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets:
  latency: {p95: 100 ms}
  size: {file: 256 KiB}
"""


BEGIN = (sys.executable, str(Path(__file__).with_name("brief.py")))
LONGEST_S = 800


class Warm:
    """``edgekd`` that need not import torch again: forks of one process (see `forked`)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("forked.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment,
            )  # fmt: skip
        with tempfile.TemporaryDirectory() as said:
            stdout, stderr = Path(said, "stdout"), Path(said, "stderr")
            command = {
                "arguments": arguments, "folder": str(folder), "environment": environment,
                "stdout": str(stdout), "stderr": str(stderr),
            }  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            pid, late = int(self._answer()), not self._answers_within(LONGEST_S)
            if late:
                os.kill(pid, signal.SIGKILL)
            code = int(self._answer())
            assert not late, f"no end within {LONGEST_S} s: {stderr.read_text()}"
            return subprocess.CompletedProcess(list(arguments), code, stdout.read_text(), stderr.read_text())

    def _answers_within(self, seconds: float) -> bool:
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def _answer(self) -> str:
        """A line, read unbuffered: `select` sees what is left."""
        line = b""
        while not line.endswith(b"\n"):
            read = os.read(self._process.stdout.fileno(), 1)
            assert read, "the process whose forks are commands has ended"
            line += read
        return line.decode()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()  # stdin ends, and so does it


class Shell:
    """A folder with a project, and ``edgekd`` in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], warm: Warm) -> None:
        self.folder, self.environment, self._warm = folder, dict(environment), warm
        self.begin: list[str] = list(BEGIN)
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
        """A command to its end, which always comes, and never with a traceback.

        Where Python is to begin in another way, or to find other modules, it is started for this command alone.
        """
        if tuple(self.begin) == BEGIN and "PYTHONPATH" not in self.environment:
            done = self._warm(arguments, self.folder, self.environment)
        else:
            done = subprocess.run(
                [*self.begin, *arguments],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
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
            seen.set()  # or never: it ended before

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            assert seen.wait(600), "".join(said)
            assert any(one.startswith(line) for one in list(said)), "".join(said)
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


@pytest.fixture(scope="session")
def warm(environment: Mapping[str, str]) -> Iterator[Warm]:
    begun = Warm(environment)
    yield begun
    begun.close()


@pytest.fixture
def edgekd(tmp_path: Path, environment: Mapping[str, str], warm: Warm) -> Shell:
    return Shell(tmp_path, environment, warm)


@pytest.fixture(scope="session")
def board_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a board's private environment with two runtimes: pip makes it once for all test processes."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "board-environment"
    shared.mkdir(exist_ok=True)
    return shared


def install_once(edgekd: Shell, board: Path, environment: Path) -> None:
    """Give the device `board`, in this folder, ONNX Runtime and LiteRT."""
    board.mkdir(parents=True, exist_ok=True)
    (board / "envs").symlink_to(environment)
    with FileLock(f"{environment}.lock"):
        if not (environment / "current").exists():
            done = edgekd("devices", "install", "board", "--runtime", "onnxruntime", "--runtime", "litert")
            assert done.returncode == 0, done.stderr


@pytest.fixture
def without(edgekd: Shell) -> Callable[[str], None]:
    """Make a module impossible to import in every process of the command, as if it weren't installed."""

    def hide(module: str) -> None:
        # Python's own way to say "there is none": import and find_spec both find nothing
        edgekd.write("hidden/sitecustomize.py", f"import sys\nsys.modules[{module!r}] = None\n")
        edgekd.environment["PYTHONPATH"] = str(edgekd.folder / "hidden")

    return hide
