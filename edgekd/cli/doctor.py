"""``edgekd doctor``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_device
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["doctor"]


@command("edgekd doctor")
@click.option("--device", default="this-computer", shell_complete=complete_device, help="The device to look at.")
def doctor(output: CommandOutput, device: str) -> None:
    """See whether this machine is ready, line by line, with what to do."""
    from edgekd import api

    output.answer(api.doctor(device=device, notice=output.notice))
