"""``edgekd predict a.tflite --device pi5``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_backend, complete_device
from edgekd.cli.numbers import Whole
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["predict"]


@command("edgekd predict a.tflite --device this-computer")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--device", default="this-computer", shell_complete=complete_device, help="Device whose tables to use.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=complete_backend,
    help="As litert/xnnpack.",
    show_default="every one measured there",
)
@click.option("--weights", type=click.Path(path_type=Path), help="State dict of a model given as my_model.py:build.")
@click.option("--input", "image", metavar="3x224x224", help="Input of such a model: channels, height, width.")
@click.option("--threads", type=Whole(1), default=1, help="Threads of the runtime.")
@click.option(
    "--table", "tables", multiple=True, type=click.Path(path_type=Path), help="A table's file, in place of those kept."
)
def predict(
    output: CommandOutput,
    models: tuple[Path, ...],
    device: str,
    backends: tuple[str, ...],
    weights: Path | None,
    image: str | None,
    threads: int,
    tables: tuple[Path, ...],
) -> None:
    """Predict latencies of models on a device, from earlier measurements there.

    A model is a file, whose bytes are read, or my_model.py:build, which runs to build the model, converted in float32
    then. No model is timed: the figures are predicted, with the error such predictions had."""
    from edgekd import api
    from edgekd.exporting.naming import shapes_of

    with output.watching() as events:
        report = api.predict(
            models,
            device=device,
            backends=backends,
            threads=threads,
            tables=tables,
            weights=weights,
            image=None if image is None else shapes_of(image),
            events=events,
        )
    output.answer(report)
