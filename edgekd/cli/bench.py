"""``edgekd bench a.onnx b.tflite``"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd.cli.names import complete_backend, complete_device
from edgekd.cli.numbers import Positive, Whole
from edgekd.cli.terminal.output import CommandOutput, command

if TYPE_CHECKING:
    from edgekd.measure.benches.bench import BenchReport
    from edgekd.measure.benches.devices import BenchReports

__all__ = ["bench"]


@command("edgekd bench f32.tflite int8.tflite --backend litert/xnnpack")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    default=("this-computer",),
    shell_complete=complete_device,
    help="Where to measure; may be repeated.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=complete_backend,
    help="As litert/xnnpack; may be repeated.",
    show_default="every one that loads the file",
)
@click.option(
    "--threads",
    type=Whole(1, 4096),
    multiple=True,
    default=(1,),
    help="Threads of the runtime; may be repeated.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="State dict of a model given as my_model.py:build.")
@click.option(
    "--input",
    "image",
    metavar="3x224x224",
    help="Input of such a model: channels, height, width; of a signal channels, steps; of several inputs 3x224x224,4.",
)
@click.option("--processes", type=Whole(1, 1000), default=5, help="Fresh processes each.")
@click.option("--rounds", type=Whole(1, 1000), default=10, help="Interleaved rounds a process.")
@click.option("--rate", type=Positive(), help="Calls a second, in place of back to back.")
@click.option("--busy", type=Whole(0, 4096), default=0, metavar="CORES", help="Cores kept busy by other work.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="[INPUT=]1x3x224x224",
    help="The shape of an input with free axes.",
)
@click.option(
    "--twin", "twins", multiple=True, metavar="FLOAT=COMPRESSED", help="Two files to compare: float and compressed."
)
@click.option("--profile", is_flag=True, help="Also time operators.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="An earlier report (--format json): exit code 1 if one is slower, or no longer runs.",
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--energy", is_flag=True, help="Also the energy of a call, by the device's meter.")
def bench(
    output: CommandOutput,
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    backends: tuple[str, ...],
    weights: Path | None,
    image: str | None,
    threads: tuple[int, ...],
    processes: int,
    rounds: int,
    rate: float | None,
    busy: int,
    shapes: tuple[str, ...],
    twins: tuple[str, ...],
    profile: bool,
    energy: bool,
    against: Path | None,
    markdown: bool,
) -> None:
    """Time models you already have, side by side, in fresh processes.

    A model is a file, or my_model.py:build, which is converted in float32 first.
    Models that can't be told apart share a rank. Exit code 6: noise decides."""
    from edgekd import api
    from edgekd.devices._protocol import Load, MeasurePlan
    from edgekd.errors import UsageError
    from edgekd.exporting.naming import shapes_of

    pairs = []
    for twin in twins:
        plain, equals, compressed = twin.partition("=")
        if not (plain and equals and compressed):
            raise UsageError(
                f"--twin {twin}: two file names with = between them expected", "for example --twin a.onnx=b.onnx"
            )
        pairs.append((_named(plain, models), _named(compressed, models)))
    load = Load(pattern="periodic", rate_hz=rate, busy=busy) if rate else Load(busy=busy)
    plan = MeasurePlan(processes=processes, rounds=rounds, profile=profile, energy=energy, load=load)
    if against is not None and len(devices) > 1:
        raise UsageError("--against holds one device against an earlier report", "name one --device")
    asked: dict[str, Any] = {
        "backends": backends,
        "threads": threads,
        "plan": plan,
        "twins": pairs,
        "shapes": dict(map(_shape, shapes)),
        "weights": weights,
        "image": None if image is None else shapes_of(image),
    }
    answer: BenchReport | BenchReports
    with output.watching() as events:
        if len(devices) > 1:
            answer = api.bench_devices(models, devices, **asked, events=events)
        else:
            answer = api.bench(models, device=devices[0], **asked, against=against, events=events)
    if markdown and output.format == "text":
        output.exit_code = answer.exit_code  # set even if the reader closes stdout
        output.lines(answer.markdown_lines())
        return
    output.answer(answer)
    if output.verbose and output.format == "text":
        for line in answer.detail_lines():
            output.say(line)


def _named(typed: str, models: Sequence[Path]) -> str:
    """Name of a file of ``models`` in the table, by its path or by its name; the text itself where it is none."""
    from edgekd.measure.models import names_of

    called = dict(zip([path.absolute() for path in models], names_of(models), strict=True))
    name = Path(typed).name
    return called.get(Path(typed).absolute(), name if name in called.values() else typed)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse ``x=1x3x224x224``: the input's name and its axes. Raises UsageError."""
    from edgekd.errors import UsageError

    name, _, axes = text.rpartition("=")
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", axes):
        raise UsageError(f"--shape {text}: sizes with x between them expected", "for example --shape 1x3x224x224")
    return name, tuple(map(int, axes.split("x")))
