"""``edgekd search project.yaml``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.arguments import CHANGES, PROJECT, RUN, TARGET, changes_of
from edgekd.cli.numbers import SEED
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["search"]


@command("edgekd search project.yaml --target this-computer")
@PROJECT
@TARGET
@CHANGES
@RUN
@click.option("--budget", help="Time to spend, for example '10 min'.", show_default="the project's")
@click.option("--seed", type=SEED, help="Seed of all random choices.", show_default="the project's")
@click.option("--replay", type=click.Path(path_type=Path), help="Decide a run again from its records, and compare.")
def search(
    output: CommandOutput,
    project: Path,
    target: str | None,
    changes: tuple[str, ...],
    run: Path | None,
    budget: str | None,
    seed: int | None,
    replay: Path | None,
) -> None:
    """Find the best student for a device. Every candidate is exported and measured there.

    An interrupted search goes on with the same command. --replay decides a finished run again from its records."""
    from edgekd import api

    if replay is not None:
        _only_replay(click.get_current_context())
        output.answer(api.replay(replay))
        return
    with output.watching() as events:
        answer = api.search(
            project, target=target, run=run, budget=budget, seed=seed, changes=changes_of(changes), events=events
        )
    output.answer(answer)


def _only_replay(context: click.Context) -> None:
    """Check that a replay has no other options: it reads everything from the run. Raises UsageError."""
    from edgekd.errors import UsageError

    names = {"project": "PROJECT", "target": "--target", "run": "--run", "budget": "--budget", "seed": "--seed"}
    names |= {"changes": "--set"}
    given = [
        shown
        for name, shown in names.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"--replay decides a run again from its records, and takes no {' or '.join(given)}",
            f"edgekd search --replay {context.params['replay']}",
        )
