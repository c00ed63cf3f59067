"""Files on a device reached by a shell: sent once, known by their digest, and whole under their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.artefacts import Format
from edgekd.devices.shell import Shell, ask, command_line
from edgekd.errors import ConnectionLost
from edgekd.records import digest_bytes, digest_file

__all__ = ["RemoteFiles", "path_there"]

_DEADLINE_S = 30.0
_SLOWEST_READ_BYTES_PER_S = 1 << 20  # a worn card
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


def path_there(written: str) -> str:
    """A path as the shell there takes it: the home folder's sign means that, and nothing else means anything."""
    return f'"$HOME"/{command_line([written[2:]])}' if written.startswith("~/") else command_line([written])


class RemoteFiles:
    """Files in edgekd's ``folder`` there. ``token`` keeps what two sessions write apart.

    Digests are told by ``sha256sum``, or by the ``python`` there where that is missing.
    """

    def __init__(self, shell: Shell, folder: str, token: str, python: str | None) -> None:
        self.folder = folder
        self._shell = shell
        self._token = token
        self._python = python

    def put(self, files: Sequence[Path]) -> str:
        """Bring files over, side by side; the first one's path there. What is there already stays."""
        digests = [digest_file(file) for file in files]
        folder = f"blobs/{digest_bytes(''.join(digests).encode())[:32]}"
        placed = {f"{folder}/{name}": file for name, file in zip(_names(files), files, strict=True)}
        self.bring(placed, digests, folder)
        return f"{self.folder}/{next(iter(placed))}"

    def bring(self, files: Mapping[str, Path], digests: Sequence[str], folder: str) -> None:
        """Make sure that files lie there whole, by what is in them: a card that loses power damages what it has."""
        wanted = dict(zip(files, digests, strict=True))
        size = sum(file.stat().st_size for file in files.values())
        for attempt in range(2):
            there = self._digests(folder, [*files], _DEADLINE_S + size / _SLOWEST_READ_BYTES_PER_S)
            lacking = [place for place in files if there.get(place) != wanted[place]]
            for place in lacking if attempt == 0 else ():
                self._push(files[place], place)
            if not lacking:
                return
        raise ConnectionLost(
            f"{files[lacking[0]].name} did not arrive as it was sent",
            "see whether the device's disk is full, or failing",
        )

    def ask(self, script: str, deadline_s: float = _DEADLINE_S) -> str:
        """Run a script in the folder there; returns its output. Raises DeviceUnreachable, ConnectionLost."""
        return ask(self._shell, f"cd {command_line([self.folder])} || exit 1\n{script}", deadline_s)

    def _digests(self, folder: str, places: Sequence[str], deadline_s: float) -> dict[str, str]:
        """Digests of the files there, by place; each is marked as used."""
        read = "import hashlib,sys;[print(hashlib.sha256(open(p,'rb').read()).hexdigest(),p) for p in sys.argv[1:]]"
        python = command_line([self._python, "-c", read]) if self._python else "false"
        folders = sorted({folder, *(place.rpartition("/")[0] for place in places)})
        lines = [f"umask 077; mkdir -p {command_line(folders)} || exit 1"]
        for place in map(shlex.quote, places):
            tool = f"if command -v sha256sum >/dev/null 2>&1; then sha256sum {place}; else {python} {place}; fi"
            lines.append(f"if [ -f {place} ]; then touch {place}; {tool}; fi")
        said = self.ask("\n".join([*lines, "true"]), deadline_s)
        rows = re.findall(r"^([0-9a-f]{64})\s+\*?(.*\S)\s*$", said, re.MULTILINE)
        return {place: digest for digest, place in rows}

    def _push(self, file: Path, place: str) -> None:
        """Under another name first: what has its name is whole."""
        part = f"{place}.{self._token}"
        self._shell.push(file, f"{self.folder}/{part}")
        # some transports keep the time it was written here
        self.ask(f"touch {shlex.quote(part)} && mv -f {command_line([part, place])}")


def _names(files: Sequence[Path]) -> list[str]:
    """Names of the files there. No name of this computer is used, but those that an ONNX file calls its weights by:
    what lies beside it lies so there.
    """
    first, *beside = files
    if first.suffix != Format.ONNX.suffix:
        return [f"data{_suffix(file)}" for file in files]
    names = [file.relative_to(first.parent).as_posix() for file in beside]
    stem = "data"
    while f"{stem}{first.suffix}" in names:
        stem += "-"
    return [f"{stem}{first.suffix}", *names]


def _suffix(file: Path) -> str:
    return file.suffix if _SUFFIX.fullmatch(file.suffix) else ""
