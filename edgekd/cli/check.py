"""``edgekd check project.yaml``"""

from __future__ import annotations

from pathlib import Path

from edgekd.cli.arguments import CHANGES, PROJECT, TARGET, changes_of
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["check"]


@command("edgekd check project.yaml")
@PROJECT
@TARGET
@CHANGES
def check(output: CommandOutput, project: Path, target: str | None, changes: tuple[str, ...]) -> None:
    """See whether a project is in order, and what a run would try.

    Takes seconds; the first time it also decodes the pictures, whose size on the disk is shown before they are written.
    Reads every file, builds the smallest student, checks the recipe on it, and counts which networks may fit the
    target's size and memory. Nothing is trained or measured, and the device is not opened: a runtime or meter that
    it lacks is reported by `edgekd doctor`, and by the run. Every run does the same first."""
    from edgekd import api

    with output.watching() as events:
        answer = api.check(project, target=target, changes=changes_of(changes), events=events)
    output.answer(answer)
