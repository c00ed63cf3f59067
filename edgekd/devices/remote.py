"""An agent on another machine: put there once, started by a shell, its files kept by what is in them.

On the device everything lies in one folder: ``agent/`` (each version once), ``blobs/`` (models and samples by digest,
let go after a week), ``sessions/`` (what one session wrote, gone at its end), ``lock``, and ``env/`` where a private
Python was installed. No name from this computer is used there, and no path that the agent tells is read outside its
session's folder.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgekd.devices.link import PipeLink
from edgekd.devices.shell import Shell, ask, command_line, last_line
from edgekd.devices.zipapp import agent_path
from edgekd.errors import ConnectionLost, DeviceUnreachable, MissingError
from edgekd.records import digest_bytes, digest_file

__all__ = ["Place", "RemoteLink", "look", "new_token"]

_DEADLINE_S = 30.0
_OLDEST_PYTHON = (3, 8)
_MOST_FETCHED_BYTES = 4 << 30
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
_PYTHONS = ("python3", "python", "/data/data/com.termux/files/usr/bin/python3")


class Place(NamedTuple):
    """Where edgekd lives on a device, and the Python there."""

    folder: str
    python: str
    version: tuple[int, int]


def new_token() -> str:
    """A session's name on the device: who comes again with it takes the place of its own lost predecessor."""
    return secrets.token_hex(8)


def look(shell: Shell, folder: str, python: str | None) -> Place:
    """Make the folder and find a Python: the one given, the private one, or the system's.

    ``folder`` begins with ``~/`` or ``/``. Raises DeviceUnreachable, and MissingError where no Python is.
    """
    home = f'"$HOME"/{command_line([folder[2:]])}' if folder.startswith("~/") else command_line([folder])
    wanted = command_line([python]) if python else f'"$F"/env/bin/python {command_line(_PYTHONS)}'
    script = f"""
umask 077
F={home}
mkdir -p "$F/agent" "$F/blobs" "$F/sessions" || exit 1
find "$F/blobs" "$F/sessions" -type f -mtime +7 -exec rm -f {{}} + 2>/dev/null
echo "folder $F"
for P in {wanted}; do
  V=$("$P" -c 'import sys; print("%d %d" % sys.version_info[:2])' 2>/dev/null </dev/null) || continue
  echo "python $V $P"
  break
done
true"""
    said = ask(shell, script, _DEADLINE_S)
    found = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith(("folder /", "python ")))
    if "folder" not in found:
        raise DeviceUnreachable(
            f"the device's answer makes no sense: {last_line(said)}", "does a POSIX shell answer there?"
        )
    if "python" not in found:
        raise MissingError(
            f"no Python was found on the device (looked for {python or 'env/bin/python, ' + ', '.join(_PYTHONS)})",
            "install Python 3.8 or later there, or give its path as `python` in the device file's connection",
        )
    major, minor, path = found["python"].split(" ", 2)
    version = (int(major), int(minor))
    if version < _OLDEST_PYTHON:
        raise MissingError(
            f"{path} on the device is Python {major}.{minor}; the agent needs 3.8 or later",
            "give the path of another one as `python` in the device file's connection",
        )
    return Place(found["folder"], path, version)


class RemoteLink:
    """See Link. ``token`` names the session there."""

    def __init__(self, shell: Shell, folder: str, python: str | None, token: str, options: str) -> None:
        self._shell = shell
        self._token = token
        self._count = 0
        self._lost = False
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the link
        try:
            self.place = look(shell, folder, python)
            agent = f"{self.place.folder}/{self._agent()}"
            words = [self.place.python, "-u", "-B", agent, "serve", f"{self.place.folder}/lock", token, options]
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
            raise ConnectionLost(
                f"the agent ended with status {_exit_status(line)}",
                "run it again; if it repeats, see whether the device has memory left",
            )
        return line

    def put(self, files: Sequence[Path]) -> str:
        """See Link. What is there already stays there."""
        name = digest_bytes("".join(digest_file(file) for file in files).encode())[:32]
        placed = [(file, f"blobs/{name}/data{_suffix(file)}") for file in files]
        sizes = {place: file.stat().st_size for file, place in placed}
        look_for = [
            f"if {_has(place, size)}; then touch {place}; echo 'have {place}'; fi" for place, size in sizes.items()
        ]
        there = self._ask("\n".join([f"umask 077; mkdir -p blobs/{name} || exit 1", *look_for, "true"])).splitlines()
        for file, place in placed:
            if f"have {place}" not in there:
                self._push(file, place)
        return f"{self.place.folder}/{placed[0][1]}"

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
        self._ask(f"rm -f {command_line([path])}")

    def close(self) -> None:
        """See Link."""
        if not self._lost:
            with contextlib.suppress(DeviceUnreachable):  # what is left there is let go after a week
                self._ask(f"rm -rf {self._session}", deadline_s=5.0)
        self._pipe.close()
        self._complaint.close()
        self._shell.close()

    @property
    def _session(self) -> str:
        return f"sessions/{self._token}"

    def _agent(self) -> str:
        """Put the agent there, if it isn't; its path within the folder."""
        file = agent_path()
        place, size = f"agent/{file.name}", file.stat().st_size
        if self._ask(f"{_has(place, size)} && echo have; true") != "have":
            self._push(file, place)
        return place

    def _push(self, file: Path, place: str) -> None:
        """Under another name first: what has its name is whole."""
        part = f"{place}.{self._token}"
        self._shell.push(file, f"{self.place.folder}/{part}")
        self._ask(f"{_has(part, file.stat().st_size)} && mv -f {part} {place}")

    def _ask(self, script: str, deadline_s: float = _DEADLINE_S) -> str:
        return ask(self._shell, f"cd {command_line([self.place.folder])} || exit 1\n{script}", deadline_s)

    def _gone(self, error: DeviceUnreachable) -> DeviceUnreachable:
        """Why the pipe has ended: the transport may have said so."""
        self._lost = True
        size = self._complaint.seek(0, 2)
        self._complaint.seek(max(0, size - 4000))
        complaint = self._complaint.read().decode("utf-8", "replace").strip()
        return self._shell.why(complaint) if complaint else error


def _has(place: str, size_bytes: int) -> str:
    """The shell's question whether a file is there, whole."""
    return f'[ "$(wc -c < {place} 2>/dev/null)" -eq {size_bytes} ] 2>/dev/null'


def _suffix(file: Path) -> str:
    return file.suffix if _SUFFIX.fullmatch(file.suffix) else ""


def _exit_status(line: bytes) -> str:
    try:
        status = int(json.loads(line)["exit"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
    return f"{status} (killed by signal {status - 128})" if status > 128 else str(status)
