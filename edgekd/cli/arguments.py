"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_target

__all__ = ["PROJECT", "RUN", "TARGET"]

PROJECT = click.argument(
    "project", type=click.Path(path_type=Path), default=Path("project.yaml"), metavar="[PROJECT=project.yaml]"
)
TARGET = click.option(
    "--target", shell_complete=complete_target, help="A target's name or path.", show_default="the project's"
)
RUN = click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="The run's folder; an unfinished run there goes on.",
    show_default="runs/DATE-TASK",
)
