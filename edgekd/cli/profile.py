"""``edgekd profile pi5``"""

from __future__ import annotations

import click

from edgekd.cli.names import complete_backend, complete_device
from edgekd.cli.numbers import Whole
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["profile"]


@command("edgekd profile this-computer --quick")
@click.argument("device", default="this-computer", metavar="[DEVICE=this-computer]", shell_complete=complete_device)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=complete_backend,
    help="As litert/xnnpack.",
    show_default="every one installed there",
)
@click.option(
    "--precision", "precisions", multiple=True, help="As dynamic-int8.", show_default="float32, float16, int8"
)
@click.option("--threads", type=Whole(1), default=1, help="Threads of the runtime, in the tables.")
@click.option("--quick", is_flag=True, help="One backend, few networks: about a minute.")
@click.option("--again", is_flag=True, help="Measure known sections again, too.")
def profile(
    output: CommandOutput,
    device: str,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: int,
    quick: bool,
    again: bool,
) -> None:
    """Profile a device: peaks, overheads, width sweep, operators, threads, heat, noise.

    Results are kept for later searches and predictions. If stopped, it resumes where it was."""
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
