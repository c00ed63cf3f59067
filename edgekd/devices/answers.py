"""Answers of the agent, checked on the way in: a wrong, late or foreign answer is an error, never a figure."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import PositiveFloat, ValidationError

from edgekd.devices._protocol import Delegation, EnergySample, OperatorTime, Outcome, ProcessSample
from edgekd.errors import DeviceUnreachable
from edgekd.records import Record

__all__ = [
    "Hello",
    "JobAnswer",
    "LoadAnswer",
    "OutputFile",
    "SampleAnswers",
    "SentinelAnswer",
    "checked",
    "decode",
    "nonsense",
]

_Answer = TypeVar("_Answer", bound=Record)


class Hello(Record):
    """The agent's greeting."""

    protocol: int
    python: str
    pid: int
    unenforced: str = ""  # a limit that was asked for and can't be kept there
    held_by: str = ""  # who holds this device's own lock, where that isn't we


class LoadAnswer(Record):
    """Result of loading a model."""

    outcome: Outcome
    detail: str


class JobAnswer(Record):
    """Result of a job of a batch. ``beside`` says which row of the sentinel each process had beside it."""

    id: int
    job: int
    outcome: Outcome
    detail: str
    processes: tuple[ProcessSample, ...] = ()
    beside: tuple[int, ...] = ()
    placement: Delegation | None = None
    operators: tuple[OperatorTime, ...] = ()
    operators_detail: str = ""
    energy: tuple[EnergySample, ...] = ()
    energy_detail: str = ""
    state: str = ""  # why it did not cool down


class SentinelAnswer(Record):
    """The sentinel's 5th percentile of each round, a row a process."""

    sentinel: tuple[tuple[PositiveFloat, ...], ...]


class OutputFile(Record):
    """A file on the device."""

    path: str
    sha256: str


class SampleAnswers(Record):
    """Answers to samples, as files on the device."""

    outcome: Outcome
    detail: str
    outputs: tuple[OutputFile, ...] = ()


def decode(line: bytes) -> dict[str, Any]:
    """A line as a JSON object. Raises DeviceUnreachable on anything else."""
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # brackets without end go as deep as Python's stack
        raise nonsense(f"{line[:80]!r} ({error})") from None
    if not isinstance(message, dict):
        raise nonsense(repr(line[:80]))
    return message


def checked(kind: type[_Answer], value: Any) -> _Answer:
    """The answer as a record. Raises DeviceUnreachable naming the first field that is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise nonsense(f"{where or 'all of it'}: {first['msg']}, found {str(first['input'])[:80]!r}") from None


def nonsense(what: str) -> DeviceUnreachable:
    """The error to raise for such an answer."""
    return DeviceUnreachable(
        f"the agent's answer makes no sense: {what}", "another version of edgekd, or something else, answers there"
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
