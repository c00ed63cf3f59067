"""The interface of a remote device's transport: run a small script there, and carry files.

Nothing is believed because a command ended well: `adb shell` answers 0 with nothing when a phone dies in the middle.
So every script ends by writing a mark with its exit status, and has a deadline of our own.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, Protocol, runtime_checkable

from edgekd.errors import ConnectionLost, DeviceUnreachable, printable

__all__ = ["FAILED_THERE", "HasShell", "Said", "Shell", "ask", "command_line", "last_line", "run_here", "size_there"]

FAILED_THERE = "see whether its disk is full, and whether the folder that edgekd uses there can be written"
"""What to do where a command on the device fails by itself."""

_MARK = "edgekd-end"
_END = re.compile(rb"(?:\A|\n)" + _MARK.encode() + rb" (\d{1,3})\r?\n?\Z")
_MOST_BYTES = 1 << 20  # of what a script may say
_KEPT_BYTES = 4000  # of its complaints


class Shell(Protocol):
    """Scripts and files on a device. Every failure is a DeviceUnreachable."""

    def argv(self, script: str, stays: bool = False) -> Sequence[str]:
        """A command of this computer that runs a POSIX shell script there, with stdin and stdout joined.

        ``stays`` is the agent's own: it is there as long as the session, and others may go by its connection.
        """
        ...

    def why(self, complaint: str, status: int | None = None) -> DeviceUnreachable:
        """Meaning of the words on stderr, and what to do. ``status`` is the transport's own, where it has ended."""
        ...

    def push(self, file: Path, place: str) -> None:
        """Write a file there. It may be cut where the connection ends: who uses it checks its digest."""
        ...

    def pull(self, place: str, file: Path, most_bytes: int) -> None:
        """Bring a file here. Raises DeviceUnreachable where it is larger."""
        ...

    def close(self) -> None:
        """Let the transport's own processes go. Never raises."""
        ...


@runtime_checkable
class HasShell(Protocol):
    """A device that can be reached by a shell."""

    folder: str

    def shell(self) -> Shell:
        """Transport of the device."""
        ...


class Said(NamedTuple):
    """Output and exit status of a command of this computer."""

    output: bytes
    complaint: str  # the end of its stderr
    status: int


def command_line(words: Sequence[str]) -> str:
    """Words as one line of a script: the shell there reads nothing into them."""
    return " ".join(shlex.quote(word) for word in words)


def ask(shell: Shell, script: str, deadline_s: float, stdin: bytes = b"") -> str:
    """Run a script there; returns its output. Raises DeviceUnreachable where it fails, ConnectionLost where cut."""
    # in a subshell, so that no `exit` of the script leaves out the mark
    said = run_here(shell.argv(f"(\n{script}\n)\nS=$?; echo; echo {_MARK} $S"), deadline_s, stdin)
    end = _END.search(said.output)
    if end is None:
        raise shell.why(said.complaint, said.status)
    text = said.output[: end.start()].decode("utf-8", "replace").strip()
    if end.group(1) != b"0":
        raise DeviceUnreachable(
            f"a command on the device ended with status {end.group(1).decode()}: {last_line(said.complaint or text)}",
            FAILED_THERE,
        )
    return text


def run_here(
    argv: Sequence[str],
    deadline_s: float,
    stdin: bytes | BinaryIO = b"",
    into: BinaryIO | None = None,
    most_bytes: int = _MOST_BYTES,
) -> Said:
    """Run a command of this computer; what it writes is returned, or goes ``into`` a file.

    Raises ConnectionLost past the deadline, DeviceUnreachable where it can't be started or says more than
    ``most_bytes``.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        if isinstance(stdin, bytes):
            given.write(stdin)
            given.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=given if isinstance(stdin, bytes) else stdin,
                stdout=subprocess.PIPE,
                stderr=complaint,
                start_new_session=True,  # no terminal to ask for a password at
                env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
            )
        except OSError as error:
            raise DeviceUnreachable(f"{argv[0]} can't be started: {error}", f"install {argv[0]}") from error
        late = threading.Timer(deadline_s, process.kill)
        late.start()
        try:
            output = io.BytesIO() if into is None else into
            _copy(process.stdout, output, most_bytes)
            status = process.wait()
        finally:
            in_time = late.is_alive()
            late.cancel()
            process.kill()
            process.communicate()
        if not in_time:
            raise ConnectionLost(
                f"the device did not answer within {deadline_s:g} s", "see whether it is on, and awake"
            )
        size = complaint.seek(0, 2)
        complaint.seek(max(0, size - _KEPT_BYTES))
        said = complaint.read().decode("utf-8", "replace").strip()
        return Said(output.getvalue() if isinstance(output, io.BytesIO) else b"", said, status)


def _copy(source: IO[bytes] | None, target: BinaryIO, most_bytes: int) -> None:
    assert source is not None  # a pipe was asked for
    while block := source.read(1 << 16):
        most_bytes -= len(block)
        if most_bytes < 0:
            raise DeviceUnreachable("the device answers without end", "see what answers there: it is no edgekd")
        target.write(block)


def size_there(shell: Shell, place: str, most_bytes: int) -> int:
    """Bytes of a plain file. Raises DeviceUnreachable where there is none, or a larger one."""
    path = command_line([place])
    counted = ask(shell, f"[ -f {path} ] && wc -c < {path}", 30.0).strip()
    if not counted.isdigit() or int(counted) > most_bytes:
        raise DeviceUnreachable(f"{printable(place)[:80]} on the device: {last_line(counted)} bytes", "run it again")
    return int(counted)


def last_line(text: str) -> str:
    """The last line that says something, fit for a terminal."""
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1].strip()[:300]) if lines else "it said nothing"
