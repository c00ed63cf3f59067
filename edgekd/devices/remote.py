"""An agent on another machine: put there once, started by a shell, its files kept by what is in them.

On the device everything lies in one folder: ``agent/`` (each version once), ``blobs/`` (models and samples by digest,
let go after a week), ``sessions/`` (what one session wrote, gone at its end), ``lock``, and ``envs/`` where a private
Python was installed. No name from this computer is used there but those that a model calls its weights by, and no path
that the agent tells is read outside its session's folder.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgekd.devices.files import RemoteFiles, path_there
from edgekd.devices.link import PipeLink
from edgekd.devices.shell import Shell, ask, command_line, last_line
from edgekd.devices.zipapp import agent_path
from edgekd.errors import ConnectionLost, DeviceUnreachable, MissingError
from edgekd.records import digest_file

__all__ = ["ENVIRONMENT", "RemoteFolder", "RemoteLink", "look", "new_token"]

_DEADLINE_S = 30.0
_OLDEST_PYTHON = (3, 8)
_MOST_FETCHED_BYTES = 4 << 30
_PYTHONS = ("python3", "python", "/data/data/com.termux/files/usr/bin/python3")

ENVIRONMENT = "$(cat envs/current 2>/dev/null || { [ -e env/ready ] && echo env; })"
"""The private environment, as the shell there finds it from edgekd's folder; ``env`` is where it was once."""


class RemoteFolder(NamedTuple):
    """Folder of edgekd on a device, and the Python there."""

    folder: str
    python: str
    version: tuple[int, int]


def new_token() -> str:
    """Token of a session's own files on the device: a session that was replaced, and ends late, writes nowhere else."""
    return secrets.token_hex(8)


def look(shell: Shell, folder: str, python: str | None) -> RemoteFolder:
    """Make the folder and find a Python: the one given, the private one, or the system's.

    ``folder`` begins with ``~/`` or ``/``. Raises DeviceUnreachable, and MissingError where no Python is.
    """
    own = f'$(cd "$F" && E={ENVIRONMENT} && [ -n "$E" ] && echo "$F/$E/bin/python")'
    wanted = path_there(python) if python else f'"{own}" {command_line(_PYTHONS)}'
    script = f"""
umask 077
F={path_there(folder)}
mkdir -p "$F/agent" "$F/blobs" "$F/sessions" || exit 1
echo "folder $F"
for P in {wanted}; do
  V=$("$P" -c 'import sys; print("%d %d" % sys.version_info[:2])' 2>/dev/null </dev/null) || continue
  echo "python $V $P"
  break
done
true"""
    said = ask(shell, script, _DEADLINE_S)
    there = re.search(r"^folder (/.*)$", said, re.MULTILINE)
    found = re.search(r"^python (\d+) (\d+) (.+)$", said, re.MULTILINE)
    if there is None:
        raise DeviceUnreachable(
            f"the device's answer makes no sense: {last_line(said)}", "does a POSIX shell answer there?"
        )
    if found is None:
        raise MissingError(
            f"no Python was found on the device (looked for {python or ', '.join(_PYTHONS)})",
            "install Python 3.8 or later there, or give its path as `python` in the device file's connection",
        )
    version, path = (int(found.group(1)), int(found.group(2))), found.group(3)
    if version < _OLDEST_PYTHON:
        raise MissingError(
            f"{path} on the device is Python {version[0]}.{version[1]}; the agent needs 3.8 or later",
            "give the path of another one as `python` in the device file's connection",
        )
    return RemoteFolder(there.group(1), path, version)


class RemoteLink:
    """See Link. ``token`` names this computer there: who comes again with it takes its lost predecessor's place.

    Without a token it takes no lock there, and may ask beside one that measures.
    ``state`` asks by the shell what the agent can't know.
    """

    def __init__(
        self,
        shell: Shell,
        folder: str,
        python: str | None,
        token: str,
        options: str,
        state: Callable[[Shell], object] = lambda _: "",
    ) -> None:
        self._shell = shell
        self._state = state
        self._own = new_token()
        self._count = 0
        self._lost = False
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the link
        try:
            self.place = look(shell, folder, python)
            self._files = RemoteFiles(shell, self.place.folder, self._own, self.place.python)
            agent = f"{self.place.folder}/{self._agent()}"
            lock = f"{self.place.folder}/lock" if token else ""
            words = [self.place.python, "-u", "-B", agent, "serve", lock, token, options]
            # not by `exec`: a shell that outlives the agent tells how it ended
            start = f"{command_line(words)}; echo '{{\"exit\": '$?'}}'"
            self._pipe = PipeLink(shell.argv(start, stays=True), stderr=self._complaint)
        except BaseException:
            self._complaint.close()
            shell.close()
            raise

    def send(self, line: bytes) -> None:
        """See Link."""
        try:
            self._pipe.send(line)
        except DeviceUnreachable as error:
            raise self._gone(error) from None

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        """See Link."""
        try:
            line = self._pipe.receive(deadline_s, most_bytes)
        except ConnectionLost as error:
            raise self._gone(error) from None
        if line.startswith(b'{"exit":'):
            self._lost = True
            said = self._complained()
            raise ConnectionLost(
                f"the agent ended with status {_exit_status(line)}{f': {last_line(said)}' if said else ''}",
                "run it again; if it repeats, see whether the device has memory and disk left",
            )
        return line

    def put(self, files: Sequence[Path]) -> str:
        """See Link. What is there already stays there."""
        return self._files.put(files)

    def folder(self) -> str:
        """See Link. The agent makes it."""
        self._count += 1
        return f"{self.place.folder}/{self._session}/{self._count}"

    def get(self, path: str, place: Path) -> None:
        """See Link."""
        if not path.startswith(f"{self.place.folder}/{self._session}/") or "/../" in path or not path.isprintable():
            raise DeviceUnreachable(
                f"the agent's answer makes no sense: {path[:80]!r} is outside its session's folder",
                "another version of edgekd, or something else, answers there",
            )
        self._shell.pull(path, place, _MOST_FETCHED_BYTES)
        self._files.ask(f"rm -f {command_line([path])}")

    def state(self) -> str:
        """See Link."""
        return str(self._state(self._shell))

    def close(self) -> None:
        """See Link."""
        if not self._lost:
            with contextlib.suppress(DeviceUnreachable):  # what is left there is let go after a week
                self._files.ask(f"rm -rf {self._session}", deadline_s=5.0)
        self._pipe.close()
        self._complaint.close()
        self._shell.close()

    @property
    def _session(self) -> str:
        return f"sessions/{self._own}"

    def _agent(self) -> str:
        """Put the agent there, if it isn't; its path within the folder."""
        file = agent_path()
        place = f"agent/{file.name}"
        self._files.bring({place: file}, [digest_file(file)], "agent")
        return place

    def _gone(self, error: DeviceUnreachable) -> DeviceUnreachable:
        """Why the pipe has ended: the transport may have said so."""
        self._lost = True
        said = self._complained()
        return self._shell.why(said) if said else error

    def _complained(self) -> str:
        """The end of what came on stderr, the transport's words or the agent's."""
        size = self._complaint.seek(0, 2)
        self._complaint.seek(max(0, size - 1000))
        return self._complaint.read().decode("utf-8", "replace").strip()


def _exit_status(line: bytes) -> str:
    try:
        status = int(json.loads(line)["exit"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
    return f"{status} (killed by signal {status - 128})" if status > 128 else str(status)
