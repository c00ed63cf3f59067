"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekd.cli.names import complete_target

__all__ = ["CHANGES", "PROJECT", "RUN", "TARGET", "changes_of"]

PROJECT = click.argument(
    "project", type=click.Path(path_type=Path), default=Path("project.yaml"), metavar="[PROJECT=project.yaml]"
)


def changes_of(given: tuple[str, ...]) -> dict[str, Any]:
    """Changes of `--set`, for the API. Raises UsageError and ConfigurationError."""
    from edgekd.overrides import parsed_change

    return dict(map(parsed_change, given))


CHANGES = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Replace a field of the project for this run, for example search.finalists=1 or 'recipe[0].distill.epochs=5'.",
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
