"""Transport of an agent's lines and files: the one part that differs between a local and a remote device."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from edgekd.errors import ConnectionLost, DeviceUnreachable
from edgekd.temporary import prefix

__all__ = ["Link", "PipeLink"]


class Link(Protocol):
    """A running agent at the other end of two pipes. Every failure is a DeviceUnreachable."""

    def send(self, line: bytes) -> None:
        """Hand over one line, its end included."""
        ...

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        """The next line without its end; raises when it is late, longer than ``most_bytes``, or never comes."""
        ...

    def put(self, files: Sequence[Path]) -> str:
        """Bring files over, side by side under their own names; the first one's path on the device."""
        ...

    def folder(self) -> str:
        """A new, empty folder on the device; it is gone after ``close``."""
        ...

    def get(self, path: str, place: Path) -> None:
        """Bring a file of the device here, and leave none there."""
        ...

    def state(self) -> str:
        """State that the device tells beside its agent, now; empty where there is none."""
        ...

    def close(self) -> None:
        """End the agent. Never raises."""
        ...


class PipeLink:
    """An agent started here as a child process: files need not move, their paths are the same on both sides."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, stderr: IO[bytes] | None = None
    ) -> None:
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                env=None if environment is None else dict(environment),
                bufsize=0,
                start_new_session=True,  # an interrupt at the keyboard reaches us first, and we end the agent
            )
        except OSError as error:
            raise DeviceUnreachable(
                f"the agent can't be started with {command[0]}: {error}", "is this Python still installed?"
            ) from error
        self._buffer = b""
        self._scratch = tempfile.TemporaryDirectory(prefix=prefix())

    @property
    def pid(self) -> int:
        """The agent's process."""
        return self._process.pid

    def send(self, line: bytes) -> None:
        """See Link."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except (OSError, ValueError):
            raise self._gone() from None

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        """See Link."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            raise self._gone()
        descriptor, end, seen = self._process.stdout.fileno(), time.monotonic() + deadline_s, 0
        while (at := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            if seen > most_bytes:
                raise DeviceUnreachable(
                    f"the agent sent a line of more than {most_bytes} bytes", "this is no edgekd agent, or it is broken"
                )
            left = end - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ConnectionLost(
                    f"the agent did not answer within {deadline_s:g} s",
                    "see what else runs on the device, and try again",
                )
            data = os.read(descriptor, 65536)
            if not data:
                raise self._gone()
            self._buffer += data
        line, self._buffer = self._buffer[:at], self._buffer[at + 1 :]
        return line

    def put(self, files: Sequence[Path]) -> str:
        """See Link."""
        return str(files[0].parent.resolve() / files[0].name)  # a link's weights lie beside the link

    def folder(self) -> str:
        """See Link."""
        return tempfile.mkdtemp(dir=self._scratch.name)

    def get(self, path: str, place: Path) -> None:
        """See Link."""
        try:
            shutil.move(path, place)
        except OSError as error:
            raise DeviceUnreachable(f"can't fetch {path}: {error}", "is the disk full?") from error

    def state(self) -> str:
        """See Link."""
        return ""

    def close(self) -> None:
        """See Link. The agent's workers die with it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._scratch.cleanup()

    def _gone(self) -> ConnectionLost:
        try:
            code: int | None = self._process.wait(1.0)  # the pipe closes a moment before the process is gone
        except subprocess.TimeoutExpired:
            code = None
        how = "closed its pipe" if code is None else f"ended with status {code}"
        return ConnectionLost(f"the agent {how}", "run it again; if it repeats, edgekd doctor shows what is missing")
