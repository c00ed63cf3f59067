"""Errors of edgekd: one tree, each branch with its exit code; every error has a message and a remedy.

::

    EdgeKDError                1  a fault of edgekd itself, or of unknown cause
    ├── UsageError             2  the command line asks for something that does not exist
    ├── ConfigurationError     3  a file a person wrote (or a model, or data) is wrong; carries every Problem found
    │   └── UnknownName        3  an unknown name, with the nearest known one
    ├── Diverged               3  a training's loss became NaN or infinite
    ├── MissingError           4  something needed is not installed, or out of reach
    │   ├── DeviceUnreachable  4
    │   │   └── ConnectionLost 4  it may come back: the request is sent once more
    │   └── DeviceBusy         4
    ├── NothingFits            5  no candidate met the budget
    ├── Unstable               6  measured, but too noisy to decide
    ├── ParityFailed           7  the exported file's outputs differ from the student's
    └── Interrupted          130  stopped by the person; everything finished is kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = [
    "ConfigurationError",
    "ConnectionLost",
    "DeviceBusy",
    "DeviceUnreachable",
    "Diverged",
    "EdgeKDError",
    "Interrupted",
    "MissingError",
    "NothingFits",
    "ParityFailed",
    "Place",
    "Problem",
    "UnknownName",
    "Unstable",
    "UsageError",
    "about",
    "first_line",
    "nearest_name",
    "printable",
]


@dataclass(frozen=True)
class Place:
    """Position in a person's files. Lines and columns count from 1; 0 means unknown."""

    file: str = ""
    line: int = 0
    column: int = 0
    field: str = ""
    excerpt: str = ""  # the source line itself, shown under the message
    width: int = 1  # characters of the excerpt to mark, from ``column`` on

    def __str__(self) -> str:
        numbers = [str(self.line), *([str(self.column)] if self.column else [])] if self.line else []
        position = ":".join([self.file, *numbers]) if self.file else ""
        return "  ".join(part for part in (position, self.field) if part)


@dataclass(frozen=True)
class Problem:
    """Problem: its place, what was found and what was expected, and a remedy."""

    message: str
    remedy: str = ""
    place: Place = Place()

    def __str__(self) -> str:
        where = str(self.place)
        lines = [f"{where}: {self.message}" if where else self.message]
        if self.place.excerpt:
            lines.append(f"{self.place.line:>5} | {self.place.excerpt}")
            if self.place.column:
                lines.append(f"{'':>5} | {' ' * (self.place.column - 1)}{'^' * max(1, self.place.width)}")
        if self.remedy:
            lines.append(f"  {self.remedy}")
        return "\n".join(printable(line) for line in "\n".join(lines).split("\n"))


class EdgeKDError(Exception):
    """Base of all errors edgekd raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class Diverged(EdgeKDError):
    """A training's loss became NaN or infinite, or its student computes such values."""

    exit_code = 3


class UsageError(EdgeKDError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigurationError(EdgeKDError):
    """Something a person wrote or handed over is wrong. All problems of all files are reported at once."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a ConfigurationError needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

    @classmethod
    def one(cls, message: str, remedy: str = "", place: Place = Place()) -> ConfigurationError:
        """Return an error with a single problem, the common case."""
        return cls([Problem(message, remedy, place)])


class UnknownName(ConfigurationError):
    """An unknown name. The message offers the nearest known one, and lists all."""

    def __init__(self, kind: str, found: str, known: Iterable[str], place: Place = Place(), remedy: str = "") -> None:
        names = sorted(known)
        near = nearest_name(found, names)
        hints = [f"did you mean `{near}`?"] if near else []
        hints.append(f"(known: {', '.join(names)})" if names else f"(no {kind} is known)")
        if remedy:
            hints.append(remedy)
        super().__init__([Problem(f"no {kind} `{found}`", "  ".join(hints), place)])
        self.kind, self.found, self.known = kind, found, tuple(names)


class MissingError(EdgeKDError):
    """Something needed is not installed or out of reach."""

    exit_code = 4


class DeviceUnreachable(MissingError):
    """The device, or the agent on it, did not answer within its deadline."""


class ConnectionLost(DeviceUnreachable):
    """The connection to the device, or the agent at its other end, is gone; it may come back."""


class DeviceBusy(MissingError):
    """Another run holds the device's lock."""


class NothingFits(EdgeKDError):
    """No candidate met the budget. The message names the nearest and by how much they miss."""

    exit_code = 5


class Unstable(EdgeKDError):
    """The measurement is too noisy to decide, and measuring more did not help."""

    exit_code = 6


class ParityFailed(EdgeKDError):
    """The exported file answers differently from the student it was made from."""

    exit_code = 7


class Interrupted(EdgeKDError):
    """The person asked to stop. Everything finished is kept; the message gives the command to resume."""

    exit_code = 130


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Attribute an OSError inside that names no file to this one: a write on a full disk knows its descriptor only."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the error's kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest_name(found: str, known: Iterable[str]) -> str | None:
    """Known name most like ``found``, or None where none is close."""
    matches = difflib.get_close_matches(found, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def printable(text: str) -> str:
    """Escape control characters, so that text can't move a terminal's cursor or colour it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
