"""``edgekd distill project.yaml``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.arguments import CHANGES, PROJECT, RUN, TARGET, changes_of
from edgekd.cli.numbers import SEED
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["distill"]


@command("edgekd distill project.yaml --target this-computer")
@PROJECT
@TARGET
@CHANGES
@RUN
@click.option("--seed", type=SEED, help="Seed of all random choices.", show_default="the project's")
@click.option(
    "--explain", is_flag=True, help="Show what each loss contributed, and how well the student follows its teacher."
)
def distill(
    output: CommandOutput,
    project: Path,
    target: str | None,
    changes: tuple[str, ...],
    run: Path | None,
    seed: int | None,
    explain: bool,
) -> None:
    """Train one student with the recipe, and certify what comes out. The project names one arch: each axis of its space
    has one choice."""
    from edgekd import api

    with output.watching() as events:
        answer = api.distill(
            project, target=target, run=run, seed=seed, explain=explain, changes=changes_of(changes), events=events
        )
    output.answer(answer)
