"""I/O wrapper between a caller's values and the student: dtype, layout, normalisation, encodings.

An exported file takes values ``v`` of one dtype; the student sees ``x = v * multiplier + offset`` per channel. Where
file and student are both 8-bit integers, ``v`` and the integers ``q`` of the input's encoding can be the same number:
``x = (q - zero_point) * scale``. Then normalisation costs nothing, because the input's quantization parameters *are*
the normalisation (``scale = 1 / std``, ``zero_point = mean`` in raw units). That needs one mean and one std for all
channels. A mean that isn't whole (127.5) is rounded to the zero point that calibration chose: every value is then off
by the same at most half a raw step, which is what the annotated student computes as well, so parity still holds. A bias
could take the rest up only where no convolution pads with zeros, so edgekd doesn't. Where channels differ, or
calibration chose another encoding, the normalisation is operators in the graph. Per-channel scales are not folded into
the first convolution: its zero padding stands for ``mean`` in raw units, which differs between channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.artefacts import Backend, Format
from edgekd.errors import Problem
from edgekd.export._protocol import ExportOptions
from edgekd.ir.encoding import Encoding
from edgekd.ir.numerics import Precision
from edgekd.ir.support import unsupported
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Affine", "IOWrapper", "input_affine", "problems_of", "unwritable"]

_SAME_SCALE = 1e-5  # relative: 255 steps of it are a four-hundredth of a step


@dataclass(frozen=True)
class Affine:
    """Affine normalisation ``x = v * multiplier + offset``; one value each, or one per channel."""

    multiplier: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def is_identity(self) -> bool:
        """True if it changes nothing."""
        return set(self.multiplier) == {1.0} and set(self.offset) == {0.0}

    @property
    def is_scalar(self) -> bool:
        """True if all channels share it."""
        return len(set(self.multiplier)) == 1 and len(set(self.offset)) == 1

    def channel(self, index: int) -> tuple[float, float]:
        """Multiplier and offset of one channel."""
        return self.multiplier[index % len(self.multiplier)], self.offset[index % len(self.offset)]


def input_affine(spec: TaskSpec, options: ExportOptions) -> Affine:
    """Normalisation from the file's input values to the student's. Identity where it is left to the caller."""
    if options.preprocess == "stated":
        return Affine((1.0,), (0.0,))
    mean, std = spec.input.mean, spec.input.std
    channels = max(len(mean), len(std))
    means = mean if len(mean) == channels else mean * channels
    stds = std if len(std) == channels else std * channels
    shift = 128.0 if options.input == "int8" else 0.0
    multiplier = tuple(1.0 / s for s in stds)
    offset = tuple((shift - m) / s for m, s in zip(means, stds, strict=True))
    if len(set(multiplier)) == 1 and len(set(offset)) == 1:
        multiplier, offset = multiplier[:1], offset[:1]
    return Affine(multiplier, offset)


@dataclass(frozen=True)
class IOWrapper:
    """Folded student with its I/O wrapper's options."""

    student: Student
    options: ExportOptions

    @property
    def precision(self) -> Precision:
        """Precision that the annotations ask for."""
        return self.student.annotations.precision

    @property
    def affine(self) -> Affine:
        """Normalisation from the file's input values to the student's."""
        return input_affine(self.student.task, self.options)

    @property
    def input_encoding(self) -> Encoding | None:
        """Encoding of the student's input as integers; None unless it is static int8."""
        return self.student.annotations.activations.get("input") if self.precision.is_static else None

    @property
    def integers_are_the_input(self) -> bool:
        """True if the file's integer input is the encoding's integers (less 128 for uint8), without an operator in
        between.
        """
        encoding = self.input_encoding
        if encoding is None or self.options.input == "float32" or encoding.bits != 8:
            return False
        if self.options.preprocess == "stated":
            return True  # the caller encodes
        if not self.affine.is_scalar:
            return False
        multiplier, offset = self.affine.channel(0)
        zero_point = -offset / multiplier - (128 if self.options.input == "uint8" else 0)
        same_scale = math.isclose(multiplier, encoding.scale[0], rel_tol=_SAME_SCALE)
        return same_scale and abs(zero_point - encoding.zero_point[0]) <= 0.5 + 1e-6

    @property
    def input_quantizer(self) -> tuple[float, int] | None:
        """Scale and (signed) zero point from float32 input values straight to integers; None where operators are
        needed.
        """
        encoding = self.input_encoding
        if encoding is None or not self.affine.is_scalar:
            return None
        multiplier, offset = self.affine.channel(0)
        scale = encoding.scale[0]
        zero_point = encoding.zero_point[0] + offset / scale
        # a zero point outside the 8 bits, or not whole, can't be written
        if abs(zero_point - round(zero_point)) > 1e-3 or not -128 <= round(zero_point) <= 127:
            return None
        return scale / multiplier, round(zero_point)


def _problems_of_heads(task: TaskSpec, options: ExportOptions, file_format: Format) -> list[Problem]:
    problems = []
    if not task.plain and options.output != "float32":
        problems.append(
            Problem(
                f"output {options.output} is for one classification head; this task has "
                f"{', '.join(head.name for head in task.heads)}",
                "write export: {output: float32}",
            )
        )
    boxes = [head.name for head in task.heads if head.kind == "detection"]
    if boxes and options.batch == "dynamic" and file_format is Format.TFLITE:
        problems.append(  # litert-torch lowers no flattening of a map whose batch it doesn't know
            Problem(
                f"TFLite can't have a dynamic batch with a detection head (`{boxes[0]}`)", "write export: {batch: 1}"
            )
        )
    return problems


def unwritable(task: TaskSpec, precision: Precision, options: ExportOptions, file_format: Format) -> list[Problem]:
    """Problems of these options for any file of a task at a precision, known before there is a student."""
    problems, spec = [], task.input
    if (spec.text is not None or spec.named) and (options.input, options.preprocess) != ("float32", "fold"):
        ids = "the input of a text task is ids of tokens, int32"
        message = "several inputs have types of their own" if spec.named else ids
        problems.append(Problem(message, "leave export.input and export.preprocess out"))
    elif options.input != "float32":
        if options.preprocess == "fold" and spec.raw_dtype != "uint8":
            problems.append(
                Problem(
                    f"input {options.input} needs a task whose raw values are uint8; here they are {spec.raw_dtype}",
                    "write export: {input: float32}",
                )
            )
        if options.preprocess == "stated" and precision is not Precision.INT8:
            problems.append(
                Problem(
                    f"input {options.input} with preprocess: stated needs precision int8; "
                    f"the precision is {precision.value}",
                    "write export: {preprocess: fold}, or {input: float32}",
                )
            )
    wide = [one.name for one in spec.named if len(one.shape) > 1]
    if wide and options.batch == "dynamic" and file_format is Format.TFLITE:
        problems.append(  # litert-torch reshapes nothing to a size that it doesn't know
            Problem(f"TFLite can't have a dynamic batch with several inputs (`{wide[0]}`)", "write export: {batch: 1}")
        )
    if options.output != "float32" and precision is not Precision.INT8:
        problems.append(
            Problem(
                f"output {options.output} needs precision int8; the precision is {precision.value}",
                "write export: {output: float32}",
            )
        )
    return [*problems, *_problems_of_heads(task, options, file_format)]


def _float_ends(student: Student, options: ExportOptions) -> list[Problem]:
    """Problems of integer inputs or outputs where the student's own first or last operator computes in float."""
    from edgekd.export.tensors import output_encoding

    problems = []
    if options.preprocess == "stated" and options.input != "float32" and "input" not in student.annotations.activations:
        problems.append(
            Problem(
                f"input {options.input} with preprocess: stated needs a first operator that computes in integers",
                "write export: {preprocess: fold}, or {input: float32}",
            )
        )
    if options.output != "float32" and student.task.plain and output_encoding(student) is None:
        problems.append(
            Problem(
                f"output {options.output} needs a last operator that computes in integers; "
                f"`{student.annotations.float_operators[-1]}` computes in float",
                "write export: {output: float32}",
            )
        )
    return problems


def problems_of(student: Student, options: ExportOptions, file_format: Format, backend: Backend) -> list[Problem]:
    """Problems that no exporter can solve for this student, whatever the format."""
    precision, annotations = student.annotations.precision, student.annotations
    problems = unsupported(precision, backend)
    if problems:
        return problems
    problems = unwritable(student.task, precision, options, file_format)
    encoded = annotations.activations and annotations.weights
    if precision.is_static and encoded and annotations.float_operators:
        problems += _float_ends(student, options)
    if precision.is_static and not encoded:
        problems.append(
            Problem(
                f"precision {precision.value} without encodings: the {file_format.value} exporter applies them and "
                "invents none",
                f"calibrate first: add the stage `quantize: {{precision: {precision.value}}}` to the recipe",
            )
        )
    if precision.weights.is_integer and not precision.is_static and not annotations.weights:
        problems.append(
            Problem(
                f"precision {precision.value} without encoded weights: exporters apply encodings and invent none",
                f"add the stage `quantize: {{precision: {precision.value}}}` to the recipe",
            )
        )
    stored = precision.weights, precision.scheme.linear or precision.weights
    for table, kinds in ((annotations.weights, stored), (annotations.activations, (precision.activations,))):
        bits = kinds[0].bits
        allowed = {each for kind in kinds for each in (kind.bits, kind.bits - (kind.bits == 8))}
        odd = sorted(name for name, encoding in table.items() if encoding.bits not in allowed)
        if odd:
            problems.append(
                Problem(f"{precision.value} has encodings of {bits} bits; {odd[0]} has {table[odd[0]].bits} bits")
            )
    return problems
