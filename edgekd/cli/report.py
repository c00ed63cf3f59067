"""``edgekd report RUN``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_run
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["report"]


@command("edgekd report runs/2026-11-24-digits")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_run)
def report(output: CommandOutput, run: Path) -> None:
    """Draw a run's page from its records: one HTML file, no network."""
    from edgekd import api

    output.answer(api.report(run))
