"""``edgekd bench a.onnx b.tflite``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_device
from edgekd.cli.output import Output, command

__all__ = ["bench"]


@command("edgekd bench f32.tflite int8.tflite --backend litert/xnnpack")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--device", default="this-computer", shell_complete=complete_device, help="Where to measure.")
@click.option("--backend", "backends", multiple=True, help="As litert/xnnpack; default: every one that loads the file.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the runtime.")
@click.option("--processes", type=click.IntRange(1), default=5, show_default=True, help="Fresh processes each.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Interleaved rounds a process.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Calls a second, in place of back to back.")
@click.option(
    "--twin", "twins", multiple=True, metavar="FLOAT=COMPRESSED", help="Two files to hold against each other."
)
@click.option("--profile", is_flag=True, help="Also time operators.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="An earlier report (--format json): exit code 1 if one is slower.",
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--energy", is_flag=True, help="Also the energy of a call, by the device's meter.")
def bench(
    output: Output,
    models: tuple[Path, ...],
    device: str,
    backends: tuple[str, ...],
    threads: int,
    processes: int,
    rounds: int,
    rate: float | None,
    twins: tuple[str, ...],
    profile: bool,
    energy: bool,
    against: Path | None,
    markdown: bool,
) -> None:
    """Time models you already have, side by side, in fresh processes.

    Models that can't be told apart share a place. Exit code 6: noise decides."""
    from edgekd import api
    from edgekd.devices._protocol import Load, MeasurePlan
    from edgekd.errors import UsageError

    pairs = []
    for twin in twins:
        plain, equals, compressed = twin.partition("=")
        if not (plain and equals and compressed):
            raise UsageError(
                f"--twin {twin}: two file names with = between them expected", "for example --twin a.onnx=b.onnx"
            )
        pairs.append((Path(plain).name, Path(compressed).name))
    load = Load(pattern="periodic", rate_hz=rate) if rate else Load()
    plan = MeasurePlan(processes=processes, rounds=rounds, profile=profile, energy=energy, load=load)
    with output.watching() as events:
        answer = api.bench(
            models,
            device=device,
            backends=backends,
            threads=threads,
            plan=plan,
            twins=pairs,
            against=against,
            events=events,
        )
    if markdown and output.format == "text":
        from edgekd.measure.bench_text import bench_markdown

        output.lines(bench_markdown(answer))
        output.exit_code = answer.exit_code
        return
    output.answer(answer)
    if output.verbose and output.format == "text":
        for line in answer.detail_lines():
            output.say(line)
