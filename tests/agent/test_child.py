"""A worker that can't be started is that job's end, in words, and nothing of it is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd.agent import child
from edgekd.agent.child import Child, Failed, Killed, NotStarted
from edgekd.agent.faults import Fault
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest

JOB = JobRequest("null", "none", "model", "", 1, {})


class Groups(Yard):
    """Control groups on paper. ``refuses`` is whose error what the kernel answers."""

    def __init__(self, refuses: str, number: int) -> None:
        super().__init__(Limits())
        self.refuses, self.number, self.removed = refuses, number, 0

    def cage(self) -> Any:
        self.answer("cage")
        return self

    def hold(self, _pid: int) -> None:
        self.answer("hold")

    def remove(self) -> None:
        self.removed += 1

    def answer(self, what: str) -> None:
        if self.refuses == what:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(errno.ENOMEM, "out-of-memory"), (errno.EAGAIN, "out-of-memory"), (errno.EACCES, None)],
)
@pytest.mark.parametrize("refuses", ["cage", "fork", "hold"])
def test_what_was_begun_is_ended(
    refuses: str, number: int, outcome: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text("import time; time.sleep(5)")
    monkeypatch.setattr(sys, "argv", [str(agent)])
    groups, begun, files = Groups(refuses, number), list[Any](), list[Any]()
    start, make_file = subprocess.Popen, child.tempfile.TemporaryFile

    def started(*words: Any, **more: Any) -> Any:
        groups.answer("fork")
        begun.append(start(*words, **more))
        return begun[-1]

    def made() -> Any:
        files.append(make_file())
        return files[-1]

    monkeypatch.setattr(child.subprocess, "Popen", started)
    monkeypatch.setattr(child.tempfile, "TemporaryFile", made)
    kind = Fault if outcome is None else NotStarted
    with pytest.raises(kind, match=f"no process can be started: .*{os.strerror(number)}") as caught:
        Child(JOB, 0, groups, lambda: None)
    assert getattr(caught.value, "outcome", None) == outcome
    assert [process.returncode for process in begun] == ([-signal.SIGKILL] if refuses == "hold" else [])
    assert all(stream.closed for process in begun for stream in (process.stdin, process.stdout))
    assert [file.closed for file in files] == [True]
    assert groups.removed == (refuses != "cage")


@pytest.mark.parametrize(
    ("number", "says", "kind", "outcome"),
    [
        (signal.SIGTERM, "", Fault, None),
        (signal.SIGKILL, "", Killed, "crashed"),
        (signal.SIGABRT, "what():  std::bad_alloc", Failed, "out-of-memory"),
        (signal.SIGABRT, "Failed to allocate memory for requested buffer of size 8", Failed, "out-of-memory"),
        (signal.SIGSEGV, "", Failed, "crashed"),
    ],
)
def test_who_ended_a_process_decides_what_it_says(
    number: signal.Signals,
    says: str,
    kind: type[Exception],
    outcome: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(f"import os; os.write(2, {says.encode()!r}); os.kill(os.getpid(), {int(number)})")
    monkeypatch.setattr(sys, "argv", [str(agent)])
    with Child(JOB, 0, Yard(Limits()), lambda: None) as one, pytest.raises(Exception, match=number.name) as caught:
        one.open(60.0)
    assert type(caught.value) is kind
    assert getattr(caught.value, "outcome", None) == outcome
