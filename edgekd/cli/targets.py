"""``edgekd targets list|show|new|check``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_device, complete_target
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["targets"]


@command("edgekd targets list", name="list")
def list_(output: CommandOutput) -> None:
    """List the targets known here: in ./targets, your own, the shipped ones."""
    from edgekd.targets.listing import list_targets

    output.answer(list_targets())


@command("edgekd targets show pi5-30fps --resolved")
@click.argument("name", shell_complete=complete_target)
@click.option("--resolved", is_flag=True, help="Every value with the file and line it comes from.")
def show(output: CommandOutput, name: str, resolved: bool) -> None:
    """Show one target, by path or by name: one beside a project here too."""
    from edgekd.targets.listing import show_target

    output.answer(show_target(name, resolved, beside=Path()))


@command("edgekd targets check targets/mine.yaml")
@click.argument("file", shell_complete=complete_target)
def check(output: CommandOutput, file: str) -> None:
    """Check a target, by path or by name, as `show` finds it: every problem at its line."""
    from edgekd.targets.listing import show_target

    output.answer(show_target(file, beside=Path()))


@command("edgekd targets new my-board --from-this-machine")
@click.argument("name")
@click.option("--from-this-machine", "here", is_flag=True, help="For this computer, with the runtimes it has.")
@click.option("--device", shell_complete=complete_device, help="For a device of the catalogue.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def new(output: CommandOutput, name: str, here: bool, device: str | None, force: bool) -> None:
    """Write a commented target to ./targets, to put budgets into."""
    from edgekd.errors import UsageError
    from edgekd.targets.listing import show_target
    from edgekd.targets.writing import write_target

    if here == (device is not None):
        raise UsageError(
            "say which device: --from-this-machine, or --device NAME", "see them with: edgekd devices list"
        )
    path = write_target(name, Path("targets"), device or "this-computer", force)
    output.say(f"wrote {path}")
    output.answer(show_target(str(path)))


@click.group()
def targets() -> None:
    """Contracts: the device, the backends allowed, the load, and the budgets a student must meet."""


for _made in (list_, show, new, check):
    targets.add_command(_made)
