"""``edgekd runs``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["runs"]


@command("edgekd runs")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"), metavar="[FOLDER=runs]")
def runs(output: CommandOutput, folder: Path) -> None:
    """List the runs below a folder, the newest first."""
    from edgekd import api

    output.answer(api.runs(folder))
