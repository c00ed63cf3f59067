"""Output of a command: its answer on stdout, as text or as JSON; everything else on stderr.

Every command gets ``--format``, ``-q`` and ``-v`` by being made with `command`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import click

from edgekd.errors import MissingError, printable
from edgekd.wrapping import columns, wrapped

if TYPE_CHECKING:
    from edgekd.events import Events

__all__ = ["CommandAnswer", "CommandOutput", "command", "nobody_reads", "write_stderr"]


class CommandAnswer(Protocol):
    """Answer of a function of `edgekd.api`. An ``exit_code`` of its own, where it has one, becomes the command's."""

    def lines(self) -> Sequence[str]:
        """Format as text lines, one screen."""
        ...

    def model_dump_json(self, *, by_alias: bool = True, indent: int | None = None) -> str:
        """Format as JSON, with its ``schema``."""
        ...


class CommandOutput:
    """Output channel of a command."""

    def __init__(self, format: Literal["text", "json"] = "text", quiet: bool = False, verbose: bool = False) -> None:
        self.format, self.quiet, self.verbose = format, quiet, verbose
        self.exit_code = 0
        self._stdout = sys.stdout

    def answer(self, answer: CommandAnswer) -> None:
        """Print the answer on stdout."""
        self.exit_code = int(getattr(answer, "exit_code", 0))  # set even if the reader closes stdout
        if self.format == "json":
            print(answer.model_dump_json(by_alias=True, indent=2), file=self._stdout)
        else:
            self.lines(answer.lines())

    def lines(self, lines: Sequence[str]) -> None:
        """Print lines on stdout, wrapped where it is a terminal."""
        width = columns() if self._stdout.isatty() else None
        for line in map(printable, lines):
            print(line if width is None else "\n".join(wrapped(line, width)), file=self._stdout)

    def say(self, text: str) -> None:
        """Print a line on stderr, unless quiet."""
        if not self.quiet:
            write_stderr(f"{printable(text)}\n")

    def notice(self, text: str) -> None:
        """Print a line on stderr that must be seen, quiet or not: what is about to be run."""
        write_stderr(f"{printable(text)}\n")

    def watching(self) -> AbstractContextManager[Events]:
        """Progress for as long as the context lasts, with Ctrl-C as a polite request."""
        from edgekd.cli.terminal.progress import watching

        return watching(self.quiet)


def nobody_reads(stream: TextIO | None = None) -> None:
    """Redirect a stream (stdout) to nowhere after a BrokenPipeError, for writes at exit too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def write_stderr(text: str) -> None:
    """Write to stderr. If it is closed, the work goes on in silence, with its exit code."""
    with suppress(BrokenPipeError):
        sys.stderr.write(text)
        sys.stderr.flush()


class _Command(click.Command):
    """Command whose help starts with an example."""

    def __init__(self, *arguments: Any, example: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Example: {self.example}\n\n")
        super().format_help(ctx, formatter)


def command(example: str, name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function whose first argument is a `CommandOutput`. ``example``: the start of its help."""

    def make(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(quiet: bool, verbose: bool, format: Literal["text", "json"] = "text", **arguments: Any) -> int:
            output = CommandOutput(format, quiet, verbose)
            context = click.get_current_context()
            context.find_root().obj = output
            try:
                Path.cwd()
            except FileNotFoundError:
                raise MissingError("the working folder is gone", "cd to a folder that is there") from None
            with redirect_stdout(sys.stderr):  # output of a project's code is no part of the answer
                function(output, **arguments)
            return output.exit_code

        made = click.command(name, cls=_Command, example=example)(run)
        own = any("--format" in parameter.opts for parameter in made.params)  # of files, and of the answer too
        asked = click.Option(["--format"], type=click.Choice(["text", "json"]), default="text", help="How to answer.")
        made.params += [] if own else [asked]
        made.params += [
            click.Option(["-q", "--quiet"], is_flag=True, help="No progress."),
            click.Option(["-v", "--verbose"], is_flag=True, help="Show details, and tracebacks."),
        ]
        return made

    return make
