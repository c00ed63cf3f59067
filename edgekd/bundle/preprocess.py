"""``preprocess.json``: exactly what is left outside the graph, for whoever feeds the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.export._protocol import ExportOptions
from edgekd.records import Filed, Record
from edgekd.students._protocol import Encoding
from edgekd.tasks._protocol import TaskSpec

__all__ = ["PREPROCESS", "Preprocess", "preprocess_of"]

PREPROCESS = "preprocess.json"


class ModelInput(Record):
    """What the model takes. ``steps`` say in words, in order, what to do to a raw sample."""

    dtype: Literal["float32", "uint8", "int8"]
    layout: Literal["nchw", "nhwc"]
    shape: tuple[int | str, ...]
    raw_range: tuple[float, float]
    steps: tuple[str, ...]


class ModelOutput(Record):
    """What the model answers: logits, which ``(q - zero_point) * scale`` brings back where they are integers."""

    dtype: Literal["float32", "uint8", "int8"]
    scale: float | None = None
    zero_point: int | None = None
    labels: tuple[str, ...] = ()
    classes: int


class Preprocess(Filed):
    """Both ends of the model, and the export options that made them so."""

    schema_: Literal["edgekd.preprocess/1"] = Field(default="edgekd.preprocess/1", alias="schema")
    input: ModelInput
    output: ModelOutput
    export: ExportOptions
    input_encoding: Encoding | None = None  # integers left to the caller: preprocess stated with an integer input
    output_encoding: Encoding | None = None


def preprocess_of(
    spec: TaskSpec, options: ExportOptions, input_encoding: Encoding | None, output_encoding: Encoding | None
) -> Preprocess:
    """State both ends. Encodings are those of the student's input and logits; only integer ends use them."""
    given = spec.input
    steps = []
    if options.preprocess == "stated":
        steps.append(f"subtract mean {list(given.mean)} and divide by std {list(given.std)}, per channel, in raw units")
        if options.input != "float32" and input_encoding is not None:
            shift = 128 if options.input == "uint8" else 0  # encodings are for signed storage
            zero = input_encoding.zero_point[0] + shift
            kept = f"kept within {shift - 128}..{shift + 127}"
            steps.append(f"quantize: round(x / {input_encoding.scale[0]}) + {zero}, {kept}")
    elif options.input == "int8":
        steps.append("subtract 128")
    if options.layout == "nhwc" and len(given.shape) == 3:
        steps.append("order the axes as batch, height, width, channel")
    shape = given.shape[1:] + given.shape[:1] if options.layout == "nhwc" else given.shape
    scale = zero_point = None
    if options.output != "float32" and output_encoding is not None:
        scale = output_encoding.scale[0]
        zero_point = output_encoding.zero_point[0] + (128 if options.output == "uint8" else 0)
    return Preprocess(
        input=ModelInput(
            dtype=options.input,
            layout=options.layout,
            shape=(options.batch, *shape),
            raw_range=given.raw_range,
            steps=tuple(steps),
        ),
        output=ModelOutput(
            dtype=options.output,
            scale=scale,
            zero_point=zero_point,
            labels=spec.head.labels,
            classes=spec.head.classes,
        ),
        export=options,
        input_encoding=input_encoding if options.preprocess == "stated" and options.input != "float32" else None,
        output_encoding=output_encoding if options.output != "float32" else None,
    )
