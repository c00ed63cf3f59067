"""``edgekd losses [NAME]``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_loss
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["losses"]


@command("edgekd losses")
@click.argument("name", required=False, shell_complete=complete_loss)
def losses(output: CommandOutput, name: str | None) -> None:
    """List the losses a recipe can name: paper, what each needs, when to use it. With a NAME, its options too."""
    from edgekd import api

    output.answer(api.losses(name))
