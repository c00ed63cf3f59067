"""``edgekd devices list|probe|install``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_device
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["devices"]


@command("edgekd devices list", name="list")
def list_(output: CommandOutput) -> None:
    """List the devices known here; --format json gives every fact with its source."""
    from edgekd.targets.listing import list_devices

    output.answer(list_devices())


@command("edgekd devices probe this-computer")
@click.argument("name", default="this-computer", metavar="[DEVICE=this-computer]", shell_complete=complete_device)
def probe(output: CommandOutput, name: str) -> None:
    """Ask a device what it is: processor, instruction sets, memory, runtimes."""
    from edgekd.devices.catalogue import probe_device

    output.answer(probe_device(name, output.notice))


@command("edgekd devices install my-board --runtime onnxruntime")
@click.argument("name", shell_complete=complete_device)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    required=True,
    help="litert, tflite-runtime, onnxruntime, openvino, or a plugin's.",
)
@click.option(
    "--python", help="The Python there to make it with.", show_default="the same as before, or the first found"
)
def install(output: CommandOutput, name: str, runtimes: tuple[str, ...], python: str | None) -> None:
    """Install runtimes on a board, into an environment of edgekd's own there."""
    from edgekd.devices.install import install_runtimes

    output.answer(install_runtimes(name, runtimes, python, output.notice))


@click.group()
def devices() -> None:
    """Hardware: what is known of it, and what it says of itself."""


for _made in (list_, probe, install):
    devices.add_command(_made)
