"""Quantization of an ONNX graph: QuantizeLinear/DequantizeLinear pairs, and narrow weights that widen at load.

Static int8 uses uint8 activations: with signed ones ONNX Runtime leaves Relu, and with it most convolutions, in float.
Weights are int8, or uint8 with zero point 128 for ONNX Runtime on an x86 CPU without 8-bit dot products, where u8 x s8
products saturate silently in int16 (u8 x u8 take another path; the integers mean the same). Biases are int32 at
``scale(input) * scale(weight)``.

Half-precision weights and weights in 8 bits alone are a Cast (and a Mul by the channel's scale) in front of float
arithmetic, which both ONNX Runtime and OpenVINO fold when they load the file: it is small, as fast as float32, and no
integer is computed with. DequantizeLinear in their place would stay in the graph and run at every call.

At dynamic int8 ONNX Runtime multiplies integers in linear layers (MatMulInteger); ConvInteger has no fast kernel, so
convolutions have their weights alone in 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.export.integer import MOVING
from edgekd.export.onnx.graph import OnnxGraph
from edgekd.ir.encoding import Encoding
from edgekd.ir.operators import weight_axis
from edgekd.students.graph import Traced, operator_of

__all__ = [
    "encode_activations",
    "encode_weights",
    "halve_weights",
    "integers",
    "keep_weights_float",
    "moved",
    "narrow_weights",
    "packed",
    "quantize_at_run_time",
    "unrounded_reads",
]


def integers(values: NDArray[np.generic], encoding: Encoding) -> NDArray[np.int8]:
    """Quantize a tensor to signed integers by its encoding."""
    scale, zero = np.asarray(encoding.scale, np.float32), np.asarray(encoding.zero_point, np.float32)
    if encoding.axis is not None and scale.size > 1:
        shape = [1] * values.ndim
        shape[encoding.axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    quantized = np.rint(np.asarray(values, np.float32) / scale) + zero
    clipped: NDArray[np.int8] = np.clip(quantized, encoding.lowest, encoding.highest).astype(np.int8)
    return clipped


def encode_activations(
    graph: OnnxGraph, encodings: Mapping[str, Encoding], unrounded: AbstractSet[tuple[str, str]]
) -> None:
    """Put a quantize-dequantize pair behind each named value. The output value keeps its name for its quantized form.

    ``unrounded`` has pairs of results (`unrounded_reads`): of a value and of an operator that reads it before it is
    quantized. A value that is read so alone gets no pair. The graph's input is left to the I/O wrapper.
    """
    missing = sorted(set(encodings) - graph.values)
    if missing:
        raise ConfigurationError.one(
            f"the ONNX graph has no value for the encoded tensors {', '.join(missing)}",
            "calibrate the student again: its graph has changed since",
        )
    for node in graph.graph.node:
        node.input[:] = [f"{name}/float" if (name, node.output[0]) in unrounded else name for name in node.input]
    read = {name for node in graph.graph.node for name in node.input} | set(graph.outputs)
    for name, encoding in encodings.items():
        if name == graph.input:
            continue
        raw = f"{name}/float"
        for node in graph.graph.node:
            for index, output in enumerate(node.output):
                if output == name:
                    node.output[index] = raw
        assert name in read or raw in read
        if name in read:
            scale, zero = activation_parameters(graph, name, encoding)
            graph.node("QuantizeLinear", [raw, scale, zero], f"{name}/int")
            graph.node("DequantizeLinear", [f"{name}/int", scale, zero], name)


def unrounded_reads(
    graph: OnnxGraph, encoded: AbstractSet[str], traced: Traced, floats: AbstractSet[str]
) -> frozenset[tuple[str, str]]:
    """Pairs of an encoded value and the first result of an operator that reads it before it is quantized.

    Both are parts of one node in ``floats``, or of two where the one reads the other in the program too: the rule of
    `RoundingPoints.unrounded`. An operator without a node's name is part of the node behind it.
    """
    nodes = {node.name: node for node in traced.program.graph.nodes}
    part_of: dict[str, str] = {name: name for name in nodes}
    for node in reversed(graph.graph.node):
        computes = next((part_of[name] for name in node.output if name in part_of), "")
        part_of |= {name: part_of.get(name) or computes for name in node.output}
        for name in node.input:
            part_of.setdefault(name, computes)
    found = set[tuple[str, str]]()
    for node in graph.graph.node:
        reader = part_of[node.output[0]]
        if reader in floats and operator_of(nodes[reader]) == "getitem":  # of a float operator with several results
            reader = nodes[reader].all_input_nodes[0].name
        for name in node.input if reader in floats else ():
            source = part_of[name]
            direct = source in floats and name == source and nodes[reader] in nodes[source].users
            if name in encoded and (source == part_of[node.output[0]] or direct):
                found.add((name, node.output[0]))
    return frozenset(found)


def moved(graph: OnnxGraph, encodings: Mapping[str, Encoding], floats: AbstractSet[str]) -> dict[str, Encoding]:
    """Encodings of values of operators that only move encoded values: their input's. Those of ``floats`` have none.

    Found in this graph: torch has other names and kinds for these on its way to ONNX.
    """
    found = dict(encodings)
    for node in graph.graph.node:
        nearest = node.op_type != "Resize" or any(
            part.s == b"nearest" for part in node.attribute if part.name == "mode"
        )
        if node.op_type in MOVING and nearest and node.input[0] in found:
            for output in node.output if node.op_type == "Split" else node.output[:1]:
                if output not in floats:
                    found.setdefault(output, found[node.input[0]])
    return {name: encoding for name, encoding in found.items() if name not in encodings}


def activation_parameters(graph: OnnxGraph, name: str, encoding: Encoding) -> tuple[str, str]:
    """Initializers of one tensor's scale and (unsigned) zero point."""
    scale = graph.constant(f"{name}/scale", np.asarray(encoding.scale[0], np.float32))
    zero = graph.constant(f"{name}/zero", np.asarray(encoding.zero_point[0] + 128, np.uint8))
    return scale, zero


def encode_weights(
    graph: OnnxGraph,
    weights: Mapping[str, Encoding],
    activations: Mapping[str, Encoding],
    biases: Mapping[str, str],
    *,
    unsigned: bool,
    write_zeros: bool,
) -> None:
    """Replace weights by their integers behind DequantizeLinear, and their biases by int32.

    A bias that an Add adds to a MatMul's result stays float, rounded to multiples of the bias's scale: the Add computes
    in float. ``activations`` has each operator's input encoding, which its bias's scale needs; ``biases`` has the names
    of biases by the values that include them (`encoded.biases`). Zero points of 0 are written where asked: ONNX Runtime
    fuses no linear layer without them, and OpenVINO makes six layers of each.
    """
    written: set[str] = set()
    for node in list(graph.graph.node):
        if weight_axis(node.op_type) is None or len(node.input) < 2 or node.input[1] not in weights:
            continue
        name = node.input[1]
        encoding = _laid(node.op_type, weights[name])
        source = activations.get(node.input[0])
        if source is None:
            raise ConfigurationError.one(
                f"{node.op_type} `{node.output[0]}` has encoded weights and an input without an encoding",
                "calibrate the student again, or leave this layer's weights float32",
            )
        scale = np.asarray(encoding.scale, np.float32)
        per_channel = {"axis": encoding.axis} if encoding.axis is not None else {}
        scale = scale if per_channel else scale.reshape(())
        if name not in written:
            stored: NDArray[np.generic] = integers(graph.array(name), encoding)
            zero = np.asarray(encoding.zero_point, np.int16).reshape(scale.shape)
            if unsigned:
                stored, zero = (stored.astype(np.int16) + 128).astype(np.uint8), zero + 128
            parts = [graph.constant(f"{name}/int", stored), graph.constant(f"{name}/scale", scale)]
            if write_zeros or zero.any():
                parts.append(graph.constant(f"{name}/zero", zero.astype(stored.dtype)))
            graph.node("DequantizeLinear", parts, f"{name}/float", **per_channel)
            written.add(name)
        node.input[1] = f"{name}/float"
        if len(node.input) > 2 and node.input[2] in graph.initializers:
            node.input[2] = _encode_bias(graph, node.input[2], f"{node.output[0]}/bias", source.scale[0] * scale)
        elif node.op_type == "MatMul":
            _round_bias(graph, node.output[0], biases, source.scale[0] * scale)
    missing = sorted(set(weights) - written)
    if missing:
        raise ConfigurationError.one(
            f"the ONNX graph has no operator with the encoded weights {', '.join(missing)}",
            "calibrate the student again: its graph has changed since",
        )


def keep_weights_float(graph: OnnxGraph) -> None:
    """Put an operator that changes nothing behind each float layer between a dequantized and a quantized value.

    ONNX Runtime would quantize the layer's weights when it loads the file, with one scale a tensor. PRelu of slope 1
    stays in its graph; an Identity it would remove.
    """
    made = {name: node for node in graph.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for node in list(graph.graph.node):
        if node.op_type not in _QUANTIZED_AT_LOAD or node.input[1] not in graph.initializers:
            continue
        source, result = made.get(node.input[0]), node.output[0]
        if node.input[0] != graph.input and (source is None or source.op_type != "DequantizeLinear"):
            continue
        if {"QuantizeLinear", "Relu", "Clip"}.isdisjoint(readers.get(result, ())):
            continue
        node.output[0] = f"{result}/linear"
        slope = graph.constant(f"{result}/one", np.ones(1, np.float32))
        graph.node("PRelu", [node.output[0], slope], result)


_QUANTIZED_AT_LOAD = ("Conv", "ConvTranspose", "Gemm")


def _laid(kind: str, encoding: Encoding) -> Encoding:
    """Encoding of a weight in an ONNX operator's layout: the output channels of a MatMul are the last axis."""
    axis = weight_axis(kind)
    return encoding if axis is None or encoding.axis is None else encoding.but(axis=axis)


def _bias_integers(graph: OnnxGraph, name: str, steps: NDArray[np.float32]) -> NDArray[np.int32]:
    whole = np.rint(graph.array(name).astype(np.float64) / steps)
    return np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32)


def _round_bias(graph: OnnxGraph, product: str, biases: Mapping[str, str], scale: NDArray[np.generic]) -> None:
    steps = np.asarray(scale, np.float32)
    for node in graph.graph.node:
        name = biases.get(node.output[0], "")
        if node.op_type == "Add" and product in node.input and name in node.input and name in graph.initializers:
            rounded = graph.constant(
                f"{node.output[0]}/bias", (_bias_integers(graph, name, steps) * steps).astype(np.float32)
            )
            node.input[:] = [rounded if given == name else given for given in node.input]


def _encode_bias(graph: OnnxGraph, name: str, prefix: str, scale: NDArray[np.generic]) -> str:
    steps = np.asarray(scale, np.float32)
    stored = _bias_integers(graph, name, steps)
    parts = [graph.constant(f"{prefix}/int", stored), graph.constant(f"{prefix}/scale", steps)]
    axis = {"axis": 0} if steps.ndim else {}
    return graph.node("DequantizeLinear", parts, f"{prefix}/float", **axis)


def halve_weights(graph: OnnxGraph, only: AbstractSet[str] | None = None) -> None:
    """Store weights, all or those named, as float16 behind a Cast.

    Raises ConfigurationError where one is too large for half precision.
    """
    for name in _weights_of(graph):
        if only is not None and name not in only:
            continue
        values = graph.array(name)
        if float(np.abs(values.astype(np.float32)).max(initial=0.0)) > float(np.finfo(np.float16).max):
            raise ConfigurationError.one(f"`{name}` has values beyond 65504, the largest of float16", "use float32")
        graph.redirect(name, f"{name}/float")
        graph.node("Cast", [graph.constant(f"{name}/half", values.astype(np.float16))], f"{name}/float", to=1)


def narrow_weights(graph: OnnxGraph, weights: Mapping[str, Encoding]) -> None:
    """Store weights as int8 behind Cast and Mul by their scale: 8 bits in the file, computed in float."""
    missing = sorted(set(weights) - set(graph.initializers))
    if missing:
        raise ConfigurationError.one(
            f"the ONNX graph has no weights {', '.join(missing)}", "quantize again: the graph has changed since"
        )
    kinds = {node.input[1]: node.op_type for node in graph.graph.node if weight_axis(node.op_type) is not None}
    for name, given in weights.items():
        values, encoding = graph.array(name), _laid(kinds.get(name, ""), given)
        scale = np.asarray(encoding.scale, np.float32)
        if encoding.axis is not None:
            shape = [1] * values.ndim
            shape[encoding.axis] = -1
            scale = scale.reshape(shape)
        graph.redirect(name, f"{name}/float")
        stored = _stored(graph, f"{name}/int", integers(values, encoding), encoding)
        cast = graph.node("Cast", [stored], f"{name}/wide", to=onnx.TensorProto.FLOAT)
        graph.node("Mul", [cast, graph.constant(f"{name}/scale", scale)], f"{name}/float")


def quantize_at_run_time(graph: OnnxGraph, weights: Mapping[str, Encoding], *, unsigned: bool) -> dict[str, Encoding]:
    """Make linear layers integer products (dynamic int8): each call quantizes their inputs to uint8 by their range.

    Returns the weights that are no linear layer's. Weights are ``unsigned`` with zero point 128 where asked.
    """
    users: dict[str, list[onnx.NodeProto]] = {name: [] for name in weights}
    for node in graph.graph.node:
        for name in users.keys() & set(node.input):
            users[name].append(node)
    left, quantized = dict(weights), set[str]()
    for name, nodes in users.items():
        if not nodes or not all(node.op_type in _PRODUCTS and list(node.input).index(name) == 1 for node in nodes):
            continue
        encoding = left.pop(name)
        values = integers(graph.array(name), _laid(nodes[0].op_type, encoding)).astype(np.int16)
        values = values.T if nodes[0].op_type == "Gemm" else values
        # products of so small integers don't saturate
        shift, kind = (128, np.uint8) if unsigned and encoding.bits > _PACKED else (0, np.int8)
        weight = _stored(graph, f"{name}/int", (values + shift).astype(kind), encoding)
        if encoding.bits == _PACKED:
            weight = graph.node("Cast", [weight], f"{name}/bytes", to=onnx.TensorProto.INT8)  # folded at load
        zero = graph.constant(f"{name}/zero", np.asarray(shift, kind))
        scale = graph.constant(f"{name}/scale", np.asarray(encoding.scale, np.float32))
        for node in nodes:
            source, result, bias = node.input[0], node.output[0], list(node.input[2:])
            if source not in quantized:
                graph.node("DynamicQuantizeLinear", [source], f"{source}/int", f"{source}/scale", f"{source}/zero")
                quantized.add(source)
            graph.graph.node.remove(node)
            factor = graph.node("Mul", [f"{source}/scale", scale], f"{result}/factor")
            sums = graph.node("MatMulInteger", [f"{source}/int", weight, f"{source}/zero", zero], f"{result}/sums")
            wide = graph.node("Cast", [sums], f"{result}/wide", to=1)
            product = graph.node("Mul", [wide, factor], f"{result}/product" if bias else result)
            if bias:
                graph.node("Add", [product, *bias], result)
    return left


_PRODUCTS = ("Gemm", "MatMul")
_PACKED = 4  # bits: two values are stored in a byte


def _stored(graph: OnnxGraph, name: str, values: NDArray[np.generic], encoding: Encoding) -> str:
    """Initializer of integers in the bits of their encoding: 8, or two in a byte."""
    if encoding.bits != _PACKED:
        return graph.constant(name, values)
    return graph.add(
        onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT4, dims=values.shape, raw_data=packed(values))
    )


def packed(values: NDArray[np.generic]) -> bytes:
    """Pack 4-bit integers, two in a byte, the first in its lower half; the last byte's upper half may be empty."""
    flat = np.ascontiguousarray(values).reshape(-1).astype(np.uint8) & 15
    pairs = np.pad(flat, (0, len(flat) % 2)).reshape(-1, 2)
    return bytes(pairs[:, 0] | pairs[:, 1] << 4)


def _weights_of(graph: OnnxGraph) -> list[str]:
    """Float initializers that are weights of an operator."""
    found = {
        node.input[1]: None
        for node in graph.graph.node
        if weight_axis(node.op_type) is not None and len(node.input) > 1 and node.input[1] in graph.initializers
    }
    return list(found)
