"""``edgekd runs``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_run
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["runs"]


@command("edgekd runs --compare runs/a runs/b")
@click.argument(
    "folders", nargs=-1, type=click.Path(path_type=Path), shell_complete=complete_run, metavar="[FOLDER=runs]..."
)
@click.option("--compare", is_flag=True, help="Show what they certified side by side, and how their projects differ.")
def runs(output: CommandOutput, folders: tuple[Path, ...], compare: bool) -> None:
    """List the runs below folders, the newest first, or compare them."""
    from edgekd import api

    wanted = folders or (Path("runs"),)
    output.answer(api.compare(wanted) if compare else api.runs(wanted))
