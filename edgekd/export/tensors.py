"""Tensors of an exported file: raw samples to its inputs, its outputs to the task's.

Where an integer input or output has an encoding (`Encoding` zero points are signed), ``q = round(x / scale) +
zero_point``; uint8 ones hold ``q + 128``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.io_wrapper import IOWrapper
from edgekd.ir.encoding import Encoding
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Rows, TaskSpec
from edgekd.tasks.named_inputs import unpack
from edgekd.tasks.rows import output_rows

__all__ = ["answers_of", "from_model_outputs", "normalised", "output_encoding", "student_inputs", "to_model_inputs"]

_DTYPES = {"float32": np.float32, "uint8": np.uint8, "int8": np.int8}


def to_model_inputs(
    raw: NDArray[Any], spec: TaskSpec, options: ExportOptions, encoding: Encoding | None
) -> list[NDArray[Any]]:
    """Convert raw samples (N, C, ...) to the file's inputs: dtype, layout and, where it is ``stated``, normalisation.

    ``encoding`` is the input's, needed only where the caller quantizes (``stated`` with an integer input). Raises
    ConfigurationError where it is needed and missing.
    """
    if spec.input.named:
        return unpack(spec.input.named, raw)
    values: NDArray[Any]
    if spec.input.text is not None:
        values = raw.astype(np.int32)
    elif options.preprocess == "stated":
        values = normalised(raw, spec)
        if options.input != "float32":
            values = _quantized(values, options.input, encoding)
    elif options.input == "int8":
        values = (raw.astype(np.int16) - 128).astype(np.int8)
    else:
        values = raw.astype(_DTYPES[options.input])
    return [np.ascontiguousarray(values.transpose(options.order(spec.input)))]


def answers_of(
    outputs: Sequence[NDArray[Any]], spec: TaskSpec, options: ExportOptions, encoding: Encoding | None
) -> Rows:
    """Convert the file's outputs, an array (N, ...) each, to the task's: logits (N, classes) float32 of a plain task.

    ``encoding`` and errors as in `from_model_outputs`.
    """
    if not spec.plain:
        return output_rows(spec, outputs)
    return from_model_outputs(outputs[0].reshape(len(outputs[0]), -1), options, encoding)


def from_model_outputs(outputs: NDArray[Any], options: ExportOptions, encoding: Encoding | None) -> NDArray[np.float32]:
    """Convert the file's output to logits (N, classes) float32. ``encoding`` is that of the logits, for integer
    outputs.

    Raises ConfigurationError where it is needed and missing.
    """
    if options.output == "float32":
        return np.asarray(outputs, np.float32)
    if encoding is None:
        raise _needed(f"output {options.output}")
    shift = 128 if options.output == "uint8" else 0
    integers = outputs.astype(np.float32) - np.float32(shift + encoding.zero_point[0])
    return np.asarray(integers * np.float32(encoding.scale[0]), np.float32)


def normalised(raw: NDArray[Any], spec: TaskSpec) -> NDArray[Any]:
    """Input of a student: ``(raw - mean) / std`` per channel, or token ids unchanged."""
    if spec.input.text is not None:
        return raw
    shape = (-1, *[1] * (len(spec.input.shape) - 1))
    mean = np.asarray(spec.input.mean, np.float32).reshape(shape)
    std = np.asarray(spec.input.std, np.float32).reshape(shape)
    return np.asarray((raw.astype(np.float32) - mean) / std, np.float32)


def student_inputs(student: Student, raw: NDArray[Any], options: ExportOptions) -> NDArray[Any]:
    """Input values of the student for raw samples: from the file's integers, where it takes them as its encoding."""
    wrapper = IOWrapper(student, options)
    encoding = wrapper.input_encoding
    if encoding is not None and options.preprocess == "fold" and wrapper.integers_are_the_input:
        integers = raw.astype(np.float32) - np.float32(128 + encoding.zero_point[0])
        return np.asarray(integers * np.float32(encoding.scale[0]), np.float32)
    return normalised(raw, student.task)


def output_encoding(student: Student) -> Encoding | None:
    """Encoding of a static int8 student's logits.

    None for other precisions, where a task isn't plain, and where the logits are computed in float. Raises
    ConfigurationError where the annotations don't fit the student's graph.
    """
    if not student.annotations.activations or not student.task.plain:
        return None
    from edgekd.export.encoded import encodings_by_node
    from edgekd.students.graph import outputs_in, trace

    program = trace(student, decomposed=False)
    return encodings_by_node(program).get(outputs_in(program.program)[0].name)


def _quantized(values: NDArray[np.float32], dtype: str, encoding: Encoding | None) -> NDArray[Any]:
    if encoding is None:
        raise _needed(f"input {dtype} with preprocess: stated")
    integers = np.rint(values / np.float32(encoding.scale[0])) + encoding.zero_point[0]
    clipped = np.clip(integers, -128, 127)
    stored: NDArray[Any] = (clipped + 128).astype(np.uint8) if dtype == "uint8" else clipped.astype(np.int8)
    return stored


def _needed(what: str) -> ConfigurationError:
    return ConfigurationError.one(
        f"{what} needs an encoding, and there is none",
        "calibrate the student: add `quantize: {precision: int8}` to the recipe, or use float32",
    )
