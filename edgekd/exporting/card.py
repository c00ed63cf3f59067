"""Model card of a file that was checked here and not measured."""

from __future__ import annotations

from edgekd.bundle.front_matter import front_matter
from edgekd.export._protocol import ExportOptions
from edgekd.exporting.answer import ExportedFile
from edgekd.exporting.data import ModelTask
from edgekd.exporting.model_argument import GivenModel
from edgekd.units import format_bytes

__all__ = ["card_text"]


def card_text(
    given: GivenModel, task: ModelTask, row: ExportedFile, options: ExportOptions, reference: float | None
) -> str:
    """Markdown of the card. ``reference`` is the float model's accuracy in PyTorch on the same samples."""
    precision, taken = row.precision, task.spec.input
    laid = "" if taken.named else f", {options.dtype(taken)}, {options.axes(taken)}"
    lines = [
        *front_matter(task.spec, row.format, precision),
        f"# {given.called}: {row.format.value}, {precision.value}",
        "",
        "| what | value |",
        "|---|---|",
        f"| model | {given.family.called} |",
        f"| input | {taken}{laid}: see `preprocess.json` |",
        f"| classes | {task.spec.head.classes} |",
        f"| precision | {precision.value}: {precision.arithmetic(row.format)} |",
        f"| size | {format_bytes(row.size_bytes or 0)} |",
    ]
    if row.parity is not None:
        lines.append(
            f"| agreement with the PyTorch model at {precision.value} | {row.parity.agree} of {row.parity.samples} "
            f"answers, largest difference {row.parity.largest:.3g} {row.parity.unit} |"
        )
    if row.accuracy is not None and task.kind == "top1":
        beside = f" (PyTorch float32: {reference:.2%})" if reference is not None else ""
        scored = f"{len(task.split('test'))} test {task.spec.input.what} of {task.where}"
        lines.append(f"| accuracy | {row.accuracy:.2%}{beside}, {scored} |")
    elif row.accuracy is not None and task.kind == "agreement":
        score = f"{row.accuracy:.2%} of {len(task.split('test'))} {task.spec.input.what}"
        lines.append(f"| same class as the float model | {score} ({task.where}) |")
    lines += [
        "",
        "Answers were checked in " + row.backend + ". Time and memory were not measured, so there is no certificate: "
        "`edgekd bench` times the file, and `edgekd export --target` certifies it on a device.",
    ]
    return "\n".join(lines) + "\n"
