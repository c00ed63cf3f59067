"""``edgekd profile pi5``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_device
from edgekd.cli.output import Output, command

__all__ = ["profile"]


@command("edgekd profile this-computer --quick")
@click.argument("device", default="this-computer", shell_complete=complete_device)
@click.option("--backend", "backends", multiple=True, help="As litert/xnnpack; default: every one installed there.")
@click.option("--precision", "precisions", multiple=True, help="As dynamic-int8; default: float32, float16, int8.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the runtime, in the tables.")
@click.option("--quick", is_flag=True, help="One backend, few networks: about a minute.")
@click.option("--again", is_flag=True, help="Measure what is known already, too.")
def profile(
    output: Output,
    device: str,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: int,
    quick: bool,
    again: bool,
) -> None:
    """Measure what a device can do: peaks, overheads, staircases, operators, threads, heat, noise.

    What is measured stays known for later searches and predictions. Stopped, it goes on where it was."""
    from edgekd import api

    with output.watching() as events:
        answer = api.profile(
            device,
            backends=backends,
            precisions=precisions,
            threads=threads,
            quick=quick,
            again=again,
            events=events,
        )
    output.answer(answer)
