"""``edgekd export my_model.py:build``, and ``edgekd export RUN``"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from edgekd.cli.names import complete_run, complete_target
from edgekd.cli.numbers import SEED
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["export"]

_FORMATS = ("tflite", "onnx", "openvino")
_PRECISIONS = ("float32", "float16", "bf16", "int8-weights", "int16x8", "dynamic-int8", "int8", "int4-weights")
_ANSWERS = ("text", "json")


class _Several(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "NAME,..."

    def __init__(self, *known: str) -> None:
        self.known = known

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}", param, ctx)
        return tuple(names)


@command("edgekd export my_model.py:build --weights w.pt --data images.npz")
@click.argument("model", metavar="MODEL", shell_complete=complete_run)
@click.option("--weights", type=click.Path(path_type=Path), help="The model's state dict (.safetensors, .pt, .npz).")
@click.option(
    "--format",
    "formats",
    type=_Several(*_FORMATS, *_ANSWERS),
    multiple=True,
    help="Formats to write: tflite, onnx, openvino. Add json to get the answer as JSON.",
    show_default="all, and text",
)
@click.option(
    "--precision",
    "precisions",
    type=_Several(*_PRECISIONS),
    multiple=True,
    help="float32, float16, dynamic-int8, int8, int4-weights; bf16 (OpenVINO), int16x8 (TFLite), "
    "int8-weights (ONNX, OpenVINO).",
    show_default="float32; with --max-drop the first four",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Samples to calibrate and score with: .npz (of several inputs an array each, named as forward's parameters), "
    "a folder of pictures or WAV files, or a .csv.",
)
@click.option(
    "--input",
    "shape",
    metavar="3x224x224",
    help="Channels, height, width; of a signal channels, steps; of several inputs 3x224x224,4.",
    show_default="the data's",
)
@click.option(
    "--mean", help="Mean of the model's training, in raw units: 123.7,116.3,103.5.", show_default="the data's"
)
@click.option("--std", help="Of each channel, as --mean.", show_default="the data's")
@click.option(
    "--max-drop",
    help="Choose the smallest precision that loses at most this much accuracy (1%); with --target, the fastest.",
)
@click.option("--target", shell_complete=complete_target, help="Measure and certify for this target.")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to write to; it must be new, empty or an earlier export. For a run: where to copy its bundle.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all random choices.")
def export(
    output: CommandOutput,
    model: str,
    weights: Path | None,
    formats: Sequence[tuple[str, ...]],
    precisions: Sequence[tuple[str, ...]],
    data: Path | None,
    shape: str | None,
    mean: str | None,
    std: str | None,
    max_drop: str | None,
    target: str | None,
    folder: Path | None,
    seed: int,
) -> None:
    """Export a model you have, or write a finished run's bundle.

    MODEL is a function that builds it (my_model.py:build), a .pt2 file of torch.export, an .onnx file, or the folder of
    a run. A model is converted, quantized, compared with itself in PyTorch, and scored; each format gets a folder with
    the file, its preprocessing, samples, a card and an example. With --target, with a certificate."""
    from edgekd import api
    from edgekd.errors import UsageError

    named = [name for several in formats for name in several]
    if "json" in named:
        output.format = "json"
    if (Path(model) / "run.json").is_file() or (Path(model).is_dir() and ":" not in model):
        asked: dict[str, object] = {
            "--weights": weights, "--precision": precisions, "--data": data, "--input": shape, "--mean": mean,
            "--std": std, "--max-drop": max_drop, "--target": target, "--seed": not _is_default("seed"),
            "--format": [name for name in named if name in _FORMATS],
        }  # fmt: skip
        if given := [name for name, value in asked.items() if value]:
            raise UsageError(f"{given[0]} is for a model, and {model} is a folder", "export a run by its folder alone")
        with output.watching() as events:
            bundle = api.export(model, output=folder, events=events)
        output.answer(bundle)
        return
    if folder is None:
        raise UsageError("a model's files need a folder", "give --output, for example --output out/")
    from edgekd.exporting.naming import shapes_of

    with output.watching() as events:
        answer = api.export_model(
            model,
            output=folder,
            weights=weights,
            formats=[name for name in named if name in _FORMATS],
            precisions=[name for several in precisions for name in several],
            data=data,
            shape=None if shape is None else shapes_of(shape),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            target=target,
            max_drop=None if max_drop is None else _share(max_drop),
            seed=seed,
            events=events,
        )
    output.answer(answer)


def _is_default(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.DEFAULT


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Parse ``123.7,116.3,103.5``. Raises UsageError."""
    from edgekd.errors import UsageError

    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} {text}: numbers with commas between them expected", f"for example {option} 123.7,116.3,103.5"
        ) from None


def _share(text: str) -> float:
    """Parse ``1%``, points of accuracy, as a share. Raises UsageError."""
    from edgekd.errors import UsageError

    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text.strip())
    if found is None or float(found[1]) >= 100:
        raise UsageError(f"--max-drop {text}: a percentage below 100 is expected", "for example --max-drop 1%")
    return float(found[1]) / 100
