"""``edgekd export RUN``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_run
from edgekd.cli.output import Output, command

__all__ = ["export"]


@command("edgekd export runs/2026-11-24-digits --output ship/")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_run)
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Where to put it too: a new or empty folder, or an earlier bundle.",
)
def export(output: Output, run: Path, folder: Path | None) -> None:
    """Write the certified bundle of a finished run: model, certificate, preprocessing, card, example."""
    from edgekd import api

    with output.watching() as events:
        answer = api.export(run, output=folder, events=events)
    output.answer(answer)
