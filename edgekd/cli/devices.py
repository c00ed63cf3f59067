"""``edgekd devices list|probe``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_device
from edgekd.cli.output import Output, command

__all__ = ["devices"]


@command("edgekd devices list", name="list")
def list_(output: Output) -> None:
    """List the devices known here; --format json gives every fact with its source."""
    from edgekd.targets.listing import list_devices

    output.answer(list_devices())


@command("edgekd devices probe this-computer")
@click.argument("name", default="this-computer", shell_complete=complete_device)
def probe(output: Output, name: str) -> None:
    """Ask a device what it is: processor, instruction sets, memory, runtimes."""
    from edgekd.devices.catalogue import probe_device

    output.answer(probe_device(name))


@click.group()
def devices() -> None:
    """Hardware: what is known of it, and what it says of itself."""


for _made in (list_, probe):
    devices.add_command(_made)
