"""I/O wrapper of a TFLite graph: dtype and layout of input and output, normalisation in between.

An integer input is a quantized tensor whose scale carries a scalar normalisation, so one DEQUANTIZE (or, for static
int8, nothing or one integer QUANTIZE) converts raw values to the student's. The rest of the normalisation is MUL and
ADD.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.export.io_wrapper import IOWrapper
from edgekd.export.tflite.flatbuffer import add_operator, add_tensor, schema
from edgekd.export.tflite.unpacking import restore_inputs
from edgekd.tasks.rows import outputs_of

__all__ = ["add_io_wrapper"]


def add_io_wrapper(model: Any, wrapper: IOWrapper) -> None:
    """Put dtype, layout and normalisation around a graph.

    It takes normalised values, channels last, float32 or (static int8) int8.
    """
    graph, task = model.subgraphs[0], wrapper.student.task
    if task.input.named:
        restore_inputs(model, task.input.named)
    else:
        _give_input(model, wrapper)
    _give_output(model, wrapper)
    inputs = [one.name for one in task.input.named] or [task.input.name]
    outputs = [output.name for output in outputs_of(task)]
    for index, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        graph.tensors[int(index)].name = name
    for signature in model.signatureDefs or []:
        signature.inputs = [_entry(name, index) for name, index in zip(inputs, graph.inputs, strict=True)]
        signature.outputs = [_entry(name, index) for name, index in zip(outputs, graph.outputs, strict=True)]


def _entry(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry


class _Front:
    """Chain of operators put in front of a graph."""

    def __init__(self, model: Any, shape: list[int], like: Any) -> None:
        self.model, self.shape, self.like, self.count = model, shape, like, 0

    def tensor(self, name: str, kind: int, **quantization: Any) -> int:
        return add_tensor(self.model, name, self.shape, kind, like=self.like, **quantization)

    def operator(self, name: str, inputs: list[int], output: int, **about: Any) -> int:
        add_operator(self.model, name, inputs, [output], at=self.count, **about)
        self.count += 1
        return output


def _give_input(model: Any, wrapper: IOWrapper) -> None:
    types, options, graph = schema().TensorType, wrapper.options, model.subgraphs[0]
    inner = int(graph.inputs[0])
    inside = graph.tensors[inner]
    integer_body = inside.type in (types.INT8, types.INT16)
    front = _Front(model, [int(size) for size in inside.shape], inside)
    if wrapper.student.task.input.text is not None:
        first = last = inner
    elif options.input == "float32":
        value = front.tensor("raw", types.FLOAT32)
        first, last = value, _normalise(front, wrapper, value, start=(1.0, 0.0))
    elif wrapper.integers_are_the_input and options.input == "int8":
        first = last = inner
    else:
        scale, zero = _carried(wrapper)
        kind = types.UINT8 if options.input == "uint8" else types.INT8
        first = last = front.tensor("raw", kind, scale=scale, zero_point=zero)
        carried = (scale, -scale * zero)
        if not (inside.type == types.INT8 and _carries_all(wrapper, carried)):
            last = front.operator("DEQUANTIZE", [first], front.tensor("raw/float", types.FLOAT32), version=2)
            last = _normalise(front, wrapper, last, start=carried)
    if last != inner:
        if integer_body:
            front.operator("QUANTIZE", [last], inner, version=1 if graph.tensors[last].type == types.FLOAT32 else 2)
        elif last == first:
            for operator in graph.operators:
                operator.inputs = np.where(np.asarray(operator.inputs) == inner, first, operator.inputs)
        else:  # the last operator in front writes the body's input itself
            graph.operators[front.count - 1].outputs = np.asarray([inner], np.int32)
    graph.inputs = np.asarray([first], np.int32)
    if options.layout == "nchw" and len(inside.shape) > 2:
        _put_transpose(model, first)


def _carried(wrapper: IOWrapper) -> tuple[float, int]:
    """Scale and zero point of the integer input: the normalisation as far as they can carry it, else raw values."""
    encoding = wrapper.input_encoding
    unsigned = 128 if wrapper.options.input == "uint8" else 0
    if wrapper.integers_are_the_input and encoding is not None:
        return encoding.scale[0], encoding.zero_point[0] + unsigned
    affine = wrapper.affine
    if not affine.is_scalar:
        return 1.0, 0
    multiplier, offset = affine.channel(0)
    zero = -offset / multiplier
    low = -128 + unsigned
    whole = abs(zero - round(zero)) < 1e-4 and low <= round(zero) <= low + 255
    return multiplier, round(zero) if whole else 0


def _carries_all(wrapper: IOWrapper, carried: tuple[float, float]) -> bool:
    if wrapper.integers_are_the_input:
        return True
    affine = wrapper.affine
    multiplier, offset = affine.channel(0)
    return affine.is_scalar and carried[0] == multiplier and abs(carried[1] - offset) < 1e-6 * max(1.0, abs(offset))


def _normalise(front: _Front, wrapper: IOWrapper, value: int, start: tuple[float, float]) -> int:
    """Append MUL and ADD that complete the normalisation, with ``x = v * start[0] + start[1]`` already done."""
    affine, types = wrapper.affine, schema().TensorType
    ratio = np.asarray([m / start[0] for m in affine.multiplier], np.float32)
    shift = np.asarray(affine.offset, np.float32) - np.float32(start[1]) * ratio
    for name, operand, neutral, options in (
        ("MUL", ratio, 1.0, schema().MulOptionsT),
        ("ADD", shift, 0.0, schema().AddOptionsT),
    ):
        if np.allclose(operand, neutral, rtol=0, atol=1e-6):
            continue
        constant = add_tensor(front.model, f"normalise/{name.lower()}", [len(operand)], types.FLOAT32, constant=operand)
        result = front.tensor(f"raw/{name.lower()}", types.FLOAT32)
        value = front.operator(name, [value, constant], result, options=options())
    return value


def _put_transpose(model: Any, first: int) -> None:
    """Make the input channel-first, with a transpose in front."""
    graph, types = model.subgraphs[0], schema().TensorType
    inside = graph.tensors[first]
    shape = [int(size) for size in inside.shape]
    parameters = inside.quantization if inside.type != types.FLOAT32 else None
    first_axes, last = [0, len(shape) - 1, *range(1, len(shape) - 1)], [0, *range(2, len(shape)), 1]
    outer = add_tensor(model, "raw/nchw", [shape[axis] for axis in first_axes], inside.type)
    graph.tensors[outer].quantization = parameters
    if inside.shapeSignature is not None:
        signature = [int(size) for size in inside.shapeSignature]
        graph.tensors[outer].shapeSignature = np.asarray([signature[axis] for axis in first_axes], np.int32)
    order = add_tensor(model, "raw/order", [len(last)], types.INT32, constant=np.asarray(last, np.int32))
    version = 1 if inside.type in (types.UINT8, types.FLOAT32) else 2
    add_operator(
        model, "TRANSPOSE", [outer, order], [first], at=0, version=version, options=schema().TransposeOptionsT()
    )
    graph.inputs = np.asarray([outer], np.int32)


def _give_output(model: Any, wrapper: IOWrapper) -> None:
    """Wrap the outputs: raw ones may still be integers; decoded ones stay as they are."""
    types, wanted, graph = schema().TensorType, wrapper.options.output, model.subgraphs[0]
    indices = [int(index) for index in graph.outputs]
    for place, (inner, output) in enumerate(zip(indices, outputs_of(wrapper.student.task), strict=True)):
        inside = graph.tensors[inner]
        shape, last = [int(size) for size in inside.shape], len(graph.operators)
        if inside.type not in (types.INT8, types.INT16) or output.dtype != "float32" or wanted == "int8":
            continue
        if wanted == "uint8":
            scale, zero = float(inside.quantization.scale[0]), int(inside.quantization.zeroPoint[0])
            outer = add_tensor(model, "answer", shape, types.UINT8, like=inside, scale=scale, zero_point=zero + 128)
            add_operator(model, "QUANTIZE", [inner], [outer], at=last, version=2)
        else:
            outer = add_tensor(model, "answer", shape, types.FLOAT32, like=inside)
            add_operator(model, "DEQUANTIZE", [inner], [outer], at=last, version=2)
        indices[place] = outer
    graph.outputs = np.asarray(indices, np.int32)
