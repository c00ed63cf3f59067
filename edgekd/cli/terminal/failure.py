"""Failure of a command: message and exit code, both taken from the error itself."""

from __future__ import annotations

import errno
import json
import sys
import tempfile
import textwrap
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekd.agent.faults import is_want_of_memory
from edgekd.cli.terminal.output import CommandOutput, nobody_reads, write_stderr
from edgekd.errors import ConfigurationError, EdgeKDError, printable

__all__ = ["HOW_TO_GO_ON", "failed", "interrupted", "out_of_reach", "unexpected", "wants_memory"]

HOW_TO_GO_ON = "a run keeps what it finished, and the same command goes on from there"
_WIDTH = 80


def failed(error: EdgeKDError, output: CommandOutput) -> int:
    """Print an error of edgekd; returns its exit code."""
    problems = [_problem(item) for item in error.problems] if isinstance(error, ConfigurationError) else []
    _as_json(output, type(error).__name__, error.exit_code, error.message, error.remedy, problems)
    if isinstance(error, ConfigurationError):
        first, *more = error.problems
        _say(str(first))
        if more:
            _say(f"{len(more)} more problem{'s' if len(more) > 1 else ''}:")
            for problem in more:
                _say(textwrap.indent(str(problem), "  "))
    else:
        _say(str(error))
    if output.verbose:
        write_stderr("".join(traceback.format_exception(error)))
    return error.exit_code


def interrupted(output: CommandOutput, error: BaseException) -> int:
    """Print that the command was stopped, and which line of a person's code ran then; returns its exit code."""
    from edgekd.code_references import projects_frame

    frame = projects_frame(error)
    where = f" in `{frame.name}` ({frame.filename}:{frame.lineno})" if frame is not None else ""
    _as_json(output, "Interrupted", 130, f"interrupted{where}", HOW_TO_GO_ON, [])
    _say(f"interrupted{where}: {HOW_TO_GO_ON}")
    return 130


def out_of_reach(error: Exception, output: CommandOutput) -> int:
    """Print a refusal of the system: a full disk, a folder that can't be written, memory; returns its exit code."""
    name = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    said = error.strerror if isinstance(error, OSError) else None
    whole = str(replace(error.problems[0], remedy="")) if isinstance(error, ConfigurationError) else str(error)
    message = f"{name}{said or whole or type(error).__name__}"
    remedy = _remedy(error)
    _as_json(output, type(error).__name__, 4, message, remedy, [])
    _say(f"{message}\n  {remedy}" if remedy else message)
    if output.verbose:
        write_stderr("".join(traceback.format_exception(error)))
    return 4


def wants_memory(error: EdgeKDError) -> bool:
    """Tell whether a ConfigurationError is really caused by too little memory."""
    cause = error.__cause__
    return isinstance(error, ConfigurationError) and cause is not None and is_want_of_memory(cause)


def _remedy(error: Exception) -> str:
    if is_want_of_memory(error):
        return f"free some memory: {HOW_TO_GO_ON}"
    if not isinstance(error, OSError):
        return ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space: {HOW_TO_GO_ON}"
    return {errno.EMFILE: "allow more open files: ulimit -n", errno.EFBIG: "allow larger files: ulimit -f"}.get(
        error.errno or 0, ""
    )


def unexpected(error: Exception, output: CommandOutput) -> int:
    """Print that edgekd has a bug, and where the traceback was written; returns its exit code."""
    text = "".join(traceback.format_exception(error))
    place = _keep(text)
    first = str(error).partition("\n")[0]
    message = f"edgekd failed: {type(error).__name__}: {first}"
    remedy = (
        f"this is a bug of edgekd; the traceback is in {place}" if place else "this is a bug of edgekd; see it with -v"
    )
    _as_json(output, type(error).__name__, 1, message, remedy, [])
    _say(f"{message}\n  {remedy}")
    if output.verbose:
        write_stderr(text)
    return 1


def _keep(text: str) -> Path | None:
    from platformdirs import user_state_path

    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.txt"
    for folder in (user_state_path("edgekd") / "crashes", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place = folder / f"edgekd-{name}"
            place.write_text(text)
            return place
        except OSError:  # the next folder is tried; with none, -v shows it
            continue
    return None


def _problem(problem: Any) -> dict[str, Any]:
    place = problem.place
    where = {"file": place.file, "line": place.line, "column": place.column, "field": place.field}
    return {"message": problem.message, "remedy": problem.remedy, **where}


def _as_json(
    output: CommandOutput, kind: str, code: int, message: str, remedy: str, problems: list[dict[str, Any]]
) -> None:
    if output.format == "json":
        body = {"schema": "edgekd.error/1", "error": kind, "exit_code": code, "message": message, "remedy": remedy}
        try:
            sys.stdout.write(json.dumps({**body, "problems": problems}, indent=2) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # stderr and the exit code still report it
            nobody_reads()


def _say(text: str) -> None:
    for line in map(printable, text.split("\n")):
        indent = line[: len(line) - len(line.lstrip())]
        quoted = " | " in line[:12] or not (indent or sys.stderr.isatty())  # a first line is one line for a program
        shown = (
            [line]
            if quoted or len(line) <= _WIDTH
            else textwrap.wrap(
                line, _WIDTH, subsequent_indent=indent or "  ", break_long_words=False, break_on_hyphens=False
            )
        )
        write_stderr("\n".join(shown) + "\n")
