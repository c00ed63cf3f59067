"""``edgekd profile pi5``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_device
from edgekd.cli.output import Output, command

__all__ = ["profile"]


@command("edgekd profile this-computer --quick")
@click.argument("device", default="this-computer", shell_complete=complete_device)
@click.option("--backend", "backends", multiple=True, help="As litert/xnnpack; default: every one installed there.")
@click.option("--quick", is_flag=True, help="One backend, few networks: within a minute.")
@click.option("--again", is_flag=True, help="Measure what is known already, too.")
def profile(output: Output, device: str, backends: tuple[str, ...], quick: bool, again: bool) -> None:
    """Measure what a device can do: peaks, overheads, staircases, threads, heat, noise.

    What is measured stays known for later searches and predictions. Stopped, it goes on where it was."""
    from edgekd import api

    with output.watching() as events:
        answer = api.profile(device, backends=backends, quick=quick, again=again, events=events)
    output.answer(answer)
