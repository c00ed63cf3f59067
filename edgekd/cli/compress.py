"""``edgekd compress project.yaml``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.arguments import CHANGES, PROJECT, RUN, TARGET, changes_of
from edgekd.cli.numbers import SEED
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["compress"]


@command("edgekd compress project.yaml --target this-computer")
@PROJECT
@TARGET
@CHANGES
@RUN
@click.option("--budget", help="Time to spend, for example '10 min'.", show_default="the project's")
@click.option("--seed", type=SEED, help="Seed of all random choices.", show_default="the project's")
def compress(
    output: CommandOutput,
    project: Path,
    target: str | None,
    changes: tuple[str, ...],
    run: Path | None,
    budget: str | None,
    seed: int | None,
) -> None:
    """Shrink a model you already have, by pruning and quantization, until it meets a target."""
    from edgekd import api

    with output.watching() as events:
        answer = api.compress(
            project, target=target, run=run, budget=budget, seed=seed, changes=changes_of(changes), events=events
        )
    output.answer(answer)
