"""``preprocess.json``: exactly what is left outside the graph, for whoever feeds the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from edgekd.export._protocol import ExportOptions, InputDtype, InputLayout
from edgekd.ir.encoding import Encoding
from edgekd.records import Extended, Filed, Record
from edgekd.tasks._protocol import InputSpec, PictureSpec, SoundSpec, TaskSpec, TextSpec
from edgekd.tasks.named_inputs import spans
from edgekd.tasks.rows import outputs_of

__all__ = ["PREPROCESS", "Preprocess", "preprocess_of"]

PREPROCESS = "preprocess.json"


class PictureInput(PictureSpec):
    """Steps from a picture's file to a raw sample; ``steps`` say them in words, by Pillow's functions."""

    steps: tuple[str, ...]


class SoundInput(SoundSpec):
    """Steps from a WAV file to a raw sample; ``steps`` say them in words."""

    steps: tuple[str, ...]


class TextInput(TextSpec):
    """Steps from a text to a raw sample; ``steps`` say them in words."""

    steps: tuple[str, ...]


class ModelInput(Record):
    """Input of the model. ``steps`` say in words, in order, what to do to a raw sample."""

    dtype: InputDtype
    layout: InputLayout
    shape: tuple[int | str, ...]
    raw_range: tuple[float, float]
    steps: tuple[str, ...]


class NamedModelInput(Record):
    """One of several inputs. ``values`` are its first value in a packed sample, and the one behind its last."""

    name: str
    dtype: Literal["float32", "int32"]
    shape: tuple[int | str, ...]
    values: tuple[int, int]


class ModelOutput(Record):
    """Output of the model: logits, which ``(q - zero_point) * scale`` brings back where they are integers."""

    dtype: Literal["float32", "uint8", "int8"]
    scale: float | None = None
    zero_point: int | None = None
    labels: tuple[str, ...] = ()
    classes: int


class HeadOutput(Record):
    """An output of a model with several heads, or with another one than classification."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str
    labels: tuple[str, ...] = ()


class Preprocess(Filed, Extended):
    """Both ends of the model, and the export options that made them so."""

    added: ClassVar[frozenset[str]] = frozenset({"outputs", "picture", "sound", "text", "inputs"})
    schema_: Literal["edgekd.preprocess/1"] = Field(default="edgekd.preprocess/1", alias="schema")
    picture: PictureInput | None = None  # None: raw samples don't come from picture files
    sound: SoundInput | None = None  # None: they don't come from WAV files
    text: TextInput | None = None  # None: they are no ids of tokens
    input: ModelInput
    output: ModelOutput
    export: ExportOptions
    input_encoding: Encoding | None = None  # integers left to the caller: preprocess stated with an integer input
    output_encoding: Encoding | None = None
    inputs: tuple[NamedModelInput, ...] = ()  # in the file's order, where `input` is their packed sample
    outputs: tuple[HeadOutput, ...] = ()  # in the file's order, where `output` is not all of them


def preprocess_of(
    spec: TaskSpec, options: ExportOptions, input_encoding: Encoding | None, output_encoding: Encoding | None
) -> Preprocess:
    """State both ends. Encodings are those of the student's input and logits; only integer ends use them."""
    given = spec.input
    steps = []
    if given.text is None and options.preprocess == "stated":
        steps.append(f"subtract mean {list(given.mean)} and divide by std {list(given.std)}, per channel, in raw units")
        if options.input != "float32" and input_encoding is not None:
            shift = 128 if options.input == "uint8" else 0  # encodings are for signed storage
            zero = input_encoding.zero_point[0] + shift
            kept = f"kept within {shift - 128}..{shift + 127}"
            steps.append(f"quantize: round(x / {input_encoding.scale[0]}) + {zero}, {kept}")
    elif options.input == "int8":
        steps.append("subtract 128")
    if given.named:
        steps.append("cut a packed sample's values into `inputs`, and give each its shape and type")
    axes = options.axes(given)
    if options.layout == "nhwc" and len(given.shape) > 1:
        steps.append(f"order the axes as {', '.join(_AXES[axis] for axis in axes)}")
    scale = zero_point = None
    if options.output != "float32" and output_encoding is not None:
        scale = output_encoding.scale[0]
        zero_point = output_encoding.zero_point[0] + (128 if options.output == "uint8" else 0)
    return Preprocess(
        picture=None if given.picture is None else _picture(given.picture),
        sound=None if given.sound is None else _sound(given.sound),
        text=None if given.text is None else _text(given.text),
        input=ModelInput(
            dtype=options.dtype(given),
            layout=axes,
            shape=options.shape(given),
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
        export=options.but(layout="nchw") if given.named else options,
        input_encoding=input_encoding if options.preprocess == "stated" and options.input != "float32" else None,
        output_encoding=output_encoding if options.output != "float32" else None,
        inputs=tuple(_inputs(given, options)),
        outputs=() if spec.plain else tuple(_outputs(spec, options)),
    )


def _inputs(given: InputSpec, options: ExportOptions) -> Iterator[NamedModelInput]:
    for one, start, end in spans(given.named):
        yield NamedModelInput(name=one.name, dtype=one.dtype, shape=(options.batch, *one.shape), values=(start, end))


_AXES = {"n": "batch", "c": "channel", "h": "height", "w": "width", "t": "time"}


def _picture(spec: PictureSpec) -> PictureInput:
    height, width = spec.size
    filtered = f"(({width}, {height}), Image.Resampling.{spec.resampling.upper()})"
    steps = (
        *(["turn it as its EXIF tag says: ImageOps.exif_transpose"] if spec.orientation == "exif" else []),
        "of 16 bits take the upper 8",
        f"convert it to {spec.mode}: Image.convert; what it says of transparency is dropped",
        f"resize the largest part in the middle of that aspect to {width} x {height}: ImageOps.fit{filtered}"
        if spec.fit == "crop"
        else f"resize it to {width} x {height}: Image.resize{filtered}",
    )
    return PictureInput(**spec.model_dump(), steps=steps)


def _sound(spec: SoundSpec) -> SoundInput:
    steps = (
        f"its sample rate must be {spec.rate} Hz",
        "integers as values of -1 to 1: of 16 bits x / 32768; of 8 bits, which are unsigned, (x - 128) / 128",
        *(["average its channels"] if spec.channels == 1 else []),
        f"the middle {spec.samples} samples; of a shorter recording all, with zeros on both sides, as many before as "
        "behind or one fewer",
    )
    return SoundInput(**spec.model_dump(), steps=steps)


def _text(spec: TextSpec) -> TextInput:
    steps = (
        "tokenizer.json cuts and pads: tokenizers.Tokenizer.from_file('tokenizer.json').encode(text).ids",
        f"behind a short text comes the id {spec.padding}",
    )
    return TextInput(**spec.model_dump(), steps=steps)


_MEANING = {
    "classification": "logits",
    "segmentation": "the class of every pixel",
    "multilabel": "a logit a label: above 0 where it is likelier there than not",
    "regression": "numbers, in the label's own units",
    ".boxes": "x1, y1, x2, y2 in pixels of the input, the likeliest first",
    ".scores": "how likely each box is, 0 where there is no further object",
    ".classes": "the class of each box",
}


def _outputs(spec: TaskSpec, options: ExportOptions) -> Iterator[HeadOutput]:
    heads = {output.name: head for head in spec.heads for output in outputs_of(spec.but(head=head, more=()))}
    for output in outputs_of(spec):
        head = heads[output.name]
        yield HeadOutput(
            name=output.name,
            dtype=output.dtype,
            shape=(options.batch, *output.shape),
            meaning=_MEANING[head.kind if output.name == head.name else output.name.removeprefix(head.name)],
            labels=head.labels,
        )
