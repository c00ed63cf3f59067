"""``edgekd init``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["init"]


@command("edgekd init --data pictures")
@click.option("--model", help="Your own model: the function that builds it, to be pruned and quantized.")
@click.option("--weights", type=click.Path(path_type=Path), help="Its weights: a state dict (.safetensors, .pt, .npz).")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Your data: a folder with one folder per class (pictures, WAV or .txt files), a .csv (path,label; text,label; "
    "or columns of numbers), or a .npz of arrays.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def init(output: CommandOutput, model: str | None, weights: Path | None, data: Path | None, force: bool) -> None:
    """Write a project and its target into this folder: for your data, your own model, or digits to try out."""
    from edgekd.beginning import begin

    output.answer(begin(Path(), model=model, weights=weights, data=data, force=force))
