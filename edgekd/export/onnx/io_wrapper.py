"""I/O wrapper of an ONNX graph: inputs and outputs of the requested dtype and layout, normalisation in between."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgekd.export.io_wrapper import IOWrapper
from edgekd.export.onnx.encode import activation_parameters
from edgekd.export.onnx.graph import OnnxGraph
from edgekd.tasks.rows import outputs_of

__all__ = ["add_io_wrapper"]

_TYPES = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
}


def add_io_wrapper(graph: OnnxGraph, wrapper: IOWrapper, *, paired_input: bool = False) -> None:
    """Put dtype, layout, normalisation and batch around a graph that takes normalised float32 with channels first.

    A static int8 graph's ``input`` encoding is applied here, since it may be the caller's own integers. With
    ``paired_input`` it is a quantize-dequantize pair even then: OpenVINO takes nothing else for an integer operator's
    input, and the pair costs it nothing.
    """
    _give_output(graph, wrapper)
    if wrapper.student.task.input.named:
        _restore_inputs(graph, wrapper)
    else:
        _give_input(graph, wrapper, paired_input)


def _give_input(graph: OnnxGraph, wrapper: IOWrapper, paired: bool) -> None:
    options, spec = wrapper.options, wrapper.student.task.input
    inside, name = graph.input, spec.name
    order = options.order(spec)
    inverse = [order.index(axis) for axis in range(len(order))]
    channels_last = list(order) != sorted(order)
    batch, *shape = options.shape(spec)
    batch = "batch" if batch == "dynamic" else batch
    if name == inside:  # readers keep the inner name, the wrapper takes the written one
        inside = f"{name}/normalised"
        graph.redirect(name, inside)
    del graph.graph.input[:]
    graph.graph.input.append(onnx.helper.make_tensor_value_info(name, _TYPES[options.dtype(spec)], [batch, *shape]))
    # OpenVINO computes its first integer layer in float where a Transpose stands before the input's pair
    late = channels_last and paired and wrapper.input_encoding is not None
    value = name
    if channels_last and not late:
        value = graph.node("Transpose", [value], f"{name}/nchw", perm=inverse)
    value = _encoded(graph, wrapper, value, inside, paired, channels_last=late)
    if late:
        value = graph.node("Transpose", [value], f"{name}/nchw", perm=inverse)
    graph.redirect(inside, value)


def _restore_inputs(graph: OnnxGraph, wrapper: IOWrapper) -> None:
    """Replace the unpacking of packed samples by the inputs themselves."""
    named, options, packed = wrapper.student.task.input.named, wrapper.options, graph.input
    batch = "batch" if options.batch == "dynamic" else options.batch
    for one in named:
        graph.free(one.name)
    (split,) = (node for node in graph.graph.node if node.op_type == "Split" and node.input[0] == packed)
    values = list(split.output)
    graph.graph.node.remove(split)
    graph.redirect(packed, named[0].name)  # readers of the batch's size
    del graph.graph.input[:]
    for one, value in zip(named, values, strict=True):
        shape = [batch, *one.shape]
        graph.graph.input.append(onnx.helper.make_tensor_value_info(one.name, _TYPES[one.dtype], shape))
        casts = [node for node in graph.graph.node if node.op_type == "Cast" and value in node.input]
        if one.dtype == "int32" and casts:  # ids were cast to float to be packed
            (cast,) = casts
            value = cast.output[0]
            graph.graph.node.remove(cast)
        if len(one.shape) > 1:  # which a reshape follows: neither moves anything
            flat = graph.constant(f"{one.name}/flat", np.asarray([-1, one.size], np.int64))
            graph.node("Reshape", [one.name, flat], value)
        else:
            graph.redirect(value, one.name)


def _encoded(
    graph: OnnxGraph, wrapper: IOWrapper, value: str, inside: str, paired: bool, *, channels_last: bool
) -> str:
    """Convert the file's values to the student's, through integers where the student is static int8."""
    encoding, options = wrapper.input_encoding, wrapper.options
    if encoding is None:
        return _normalised(graph, wrapper, value, channels_last)
    scale, zero = activation_parameters(graph, inside, encoding)
    quantizer = wrapper.input_quantizer
    if wrapper.integers_are_the_input:
        own_zero = zero
        if options.input == "int8":
            own_zero = graph.constant(f"{inside}/signed_zero", np.asarray(encoding.zero_point[0], np.int8))
        value = graph.node("DequantizeLinear", [value, scale, own_zero], f"{inside}/given")
        if options.input == "uint8" and not paired:
            return value
        integer = graph.node("QuantizeLinear", [value, scale, zero], f"{inside}/int")
    elif options.input == "float32" and quantizer is not None and not paired:
        raw_scale = graph.constant(f"{inside}/raw_scale", np.asarray(quantizer[0], np.float32))
        raw_zero = graph.constant(f"{inside}/raw_zero", np.asarray(quantizer[1] + 128, np.uint8))
        integer = graph.node("QuantizeLinear", [value, raw_scale, raw_zero], f"{inside}/int")
    else:
        value = _normalised(graph, wrapper, value, channels_last)
        integer = graph.node("QuantizeLinear", [value, scale, zero], f"{inside}/int")
    return graph.node("DequantizeLinear", [integer, scale, zero], f"{inside}/seen")


def _normalised(graph: OnnxGraph, wrapper: IOWrapper, value: str, channels_last: bool) -> str:
    affine, options = wrapper.affine, wrapper.options
    if options.input != "float32":
        value = graph.node("Cast", [value], f"{value}/wide", to=TensorProto.FLOAT)
    if affine.is_identity:
        return value
    shape = (-1,) if channels_last else (-1, *[1] * (len(wrapper.student.task.input.shape) - 1))
    multiplier = np.asarray(affine.multiplier, np.float32).reshape(shape)
    offset = np.asarray(affine.offset, np.float32).reshape(shape)
    if set(affine.multiplier) != {1.0}:
        value = graph.node("Mul", [value, graph.constant("normalise/multiplier", multiplier)], f"{value}/scaled")
    if set(affine.offset) != {0.0}:
        value = graph.node("Add", [value, graph.constant("normalise/offset", offset)], f"{value}/shifted")
    return value


def _give_output(graph: OnnxGraph, wrapper: IOWrapper) -> None:
    options, task = wrapper.options, wrapper.student.task
    batch: int | str = "batch" if options.batch == "dynamic" else options.batch
    given, values = list(outputs_of(task)), []
    for inside, output in zip(graph.outputs, given, strict=True):
        dtype, result = output.dtype, output.name
        if not task.plain or options.output == "float32":
            if inside != result:
                graph.rename(inside, result)
        else:
            # static int8: the value is dequantized from `inside/int`, and the caller wants its integers
            integer, dtype = f"{inside}/int", options.output
            if options.output == "uint8":
                graph.rename(integer, result)
            else:
                signed = graph.constant(f"{inside}/signed_zero", _signed(graph, inside))
                graph.node("QuantizeLinear", [inside, f"{inside}/scale", signed], result)
        values.append(onnx.helper.make_tensor_value_info(result, _TYPES[dtype], [batch, *output.shape]))
    del graph.graph.output[:]
    graph.graph.output.extend(values)
    _drop_unread(graph, {output.name for output in given})


def _signed(graph: OnnxGraph, name: str) -> np.ndarray[tuple[()], np.dtype[np.int8]]:
    return np.asarray(int(graph.array(f"{name}/zero")) - 128, np.int8)


def _drop_unread(graph: OnnxGraph, results: set[str]) -> None:
    read = {name for node in graph.graph.node for name in node.input} | results
    for node in [node for node in graph.graph.node if not any(name in read for name in node.output)]:
        graph.graph.node.remove(node)
