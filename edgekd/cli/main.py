"""``edgekd``: group of all commands, each imported only when it is called, and the only place of exit codes."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click
from click.shell_completion import shell_complete

from edgekd.errors import EdgeKDError, nearest_name
from edgekd.version import __version__

__all__ = ["COMMANDS", "COMPLETION", "group", "main"]

COMPLETION = "_EDGEKD_COMPLETE"
"""Environment variable by which a shell asks for completions."""

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("edgekd.cli.init:init", "Start a project in this folder."),
    "check": ("edgekd.cli.check:check", "See whether a project is in order, and what a run would try."),
    "search": ("edgekd.cli.search:search", "Find the best student for a device, measured in the loop."),
    "compress": ("edgekd.cli.compress:compress", "Shrink a model you have until it meets a target."),
    "distill": ("edgekd.cli.distill:distill", "Train one student from a teacher, and certify it."),
    "export": ("edgekd.cli.export:export", "Convert and quantize a model you have, or write a run's bundle."),
    "verify": ("edgekd.cli.verify:verify", "Check a bundle: hashes, parity, budgets measured again."),
    "report": ("edgekd.cli.report:report", "Draw a run's page."),
    "runs": ("edgekd.cli.runs:runs", "List runs."),
    "bench": ("edgekd.cli.bench:bench", "Time models you already have."),
    "profile": ("edgekd.cli.profile:profile", "Profile a device, once for all later work on it."),
    "predict": ("edgekd.cli.predict:predict", "Predict latencies on a device from earlier measurements."),
    "tables": ("edgekd.cli.tables:tables", "Latency tables of devices: list, export, import."),
    "doctor": ("edgekd.cli.doctor:doctor", "See whether this machine is ready."),
    "losses": ("edgekd.cli.losses:losses", "List distillation losses."),
    "targets": ("edgekd.cli.targets:targets", "Contracts: list, show, new, check."),
    "devices": ("edgekd.cli.devices:devices", "Hardware: list, probe, install runtimes on a board."),
}
"""Every command: its location, and a summary line."""

_FIRST = """\
edgekd: makes an image model small and fast enough for a device, and proves it

  see whether this machine is ready       edgekd doctor
  start a project in this folder          edgekd init
  see whether a project is in order       edgekd check project.yaml
  find the best student for a device      edgekd search project.yaml
  shrink a model you have                 edgekd compress project.yaml
  convert and quantize a model you have   edgekd export my_model.py:build
  time models you have                    edgekd bench a.onnx b.tflite
  look at what came out                   edgekd runs

All commands: edgekd -h      One command: edgekd search -h
"""


class _Lazy(click.Group):
    """Group that imports its commands by name, and offers the nearest one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = nearest_name(args[0], COMMANDS)
            hint = f"Did you mean `{near}`?" if near else f"Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"no command `{args[0]}`. {hint}", ctx)
        return super().resolve_command(ctx, args)


_SETTINGS = {"max_content_width": 80, "help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Lazy, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(__version__, message="edgekd %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Make an image model small and fast enough for a device, and prove it by measurement there."""
    if ctx.invoked_subcommand is None:
        click.echo(_FIRST, nl=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, which the error tree decides."""
    from edgekd.cli.terminal.output import CommandOutput, nobody_reads

    code = _run(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            nobody_reads(stream)  # what is left in its buffer would fail again at exit, with Python's code of 120
            if not code and not isinstance(error, BrokenPipeError):  # help or a version on a full disk
                from edgekd.cli.terminal.failure import out_of_reach

                code = out_of_reach(error, CommandOutput())
    return code


def _run(arguments: Sequence[str] | None) -> int:
    from edgekd.cli.terminal.output import CommandOutput, nobody_reads

    _open_standard_streams()
    output = CommandOutput()
    try:
        if arguments is None and sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:
            # records and runtimes take names of files as UTF-8, whatever the locale says: begin again so, and all below
            os.environ["PYTHONUTF8"] = "1"
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
        if arguments is None:  # the process ends with it, a second later where it looks through torch for garbage
            atexit.register(gc.freeze)
        asked = os.environ.get(COMPLETION)
        if asked:  # a shell asks for completions: click answers that in `Group.main` alone, which is not used here
            return shell_complete(group, {}, "edgekd", COMPLETION, asked)
        with group.make_context("edgekd", list(sys.argv[1:] if arguments is None else arguments)) as root:
            root.obj = output
            try:
                code = group.invoke(root)
            finally:
                output = root.obj
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        with suppress(BrokenPipeError):
            error.show()
        return 2
    except BrokenPipeError:  # the reader of the answer has closed it
        nobody_reads()
        return output.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        from edgekd.cli.terminal.failure import interrupted

        return interrupted(output, stop)
    except EdgeKDError as error:
        from edgekd.cli.terminal.failure import failed, out_of_reach, wants_memory

        return (out_of_reach if wants_memory(error) else failed)(error, output)
    except SystemExit as error:  # the code of a project or a plugin: never this command's own end
        from edgekd.cli.terminal.failure import failed
        from edgekd.code_references import exit_of

        ended = exit_of(error)
        ended.__cause__ = error  # which -v shows
        return failed(ended, output)
    except OSError as error:
        from edgekd.cli.terminal.failure import out_of_reach

        return out_of_reach(error, output)
    except Exception as error:  # noqa: BLE001  # the last resort: said, written down, exit code 1
        from edgekd.agent.faults import is_shortage, is_want_of_memory
        from edgekd.cli.terminal.failure import out_of_reach, unexpected

        return (out_of_reach if is_shortage(error) or is_want_of_memory(error) else unexpected)(error, output)


def _open_standard_streams() -> None:
    """Open standard streams that the caller closed on /dev/null: else the next opened file would take their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
