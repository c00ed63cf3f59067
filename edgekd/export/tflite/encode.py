"""Quantization of a TFLite graph.

Static int8 goes through ai-edge-quantizer, which is given every range, activations and weights, as the encodings say,
so that its integers are ours; unsupported operators it leaves silently in float, so all types and scales are read back.
Float islands, and the decoding of several heads' raw outputs, stay in float. float16 weights are constants that widen
at load. Dynamic int8 weights are per-channel constants of the hybrid kernels, which quantize activations at run time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.export.onnx.encode import integers, packed
from edgekd.export.tflite.body import DECODING, TfliteBody
from edgekd.export.tflite.flatbuffer import (
    add_buffer,
    add_operator,
    add_tensor,
    constant_of,
    operator_name,
    read_model,
    schema,
    set_operator_version,
)
from edgekd.ir.encoding import Encoding
from edgekd.ir.operators import TFLITE, weight_axis

__all__ = ["halve_weights", "narrow_tables", "narrow_weights", "quantize"]

_HYBRID_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
"""Operator versions with per-channel int8 weights and float activations (TFLite's own version table)."""

_AGAIN = "calibrate the student again, or choose another backend"


def quantize(
    body: TfliteBody,
    activations: Mapping[str, Encoding],
    weights: Mapping[str, Encoding],
    passing: AbstractSet[str],
    floats: AbstractSet[str] = frozenset(),
) -> Any:
    """Static int8 model (a ``ModelT``). ``activations`` by node of the program, ``weights`` by parameter.

    Nodes in ``passing`` need no tensor of their own: another operator may do their work. Those in ``floats`` compute in
    float. Raises ConfigurationError naming the operator or tensor that can't have its encoding.
    """
    from ai_edge_quantizer import quantizer, recipe

    model = read_model(body.data)
    tensors = model.subgraphs[0].tensors
    encodings = _by_tensor(model, body, activations, passing, floats)
    islands = _islands(model, body, encodings, floats)
    ranges: dict[str, dict[str, NDArray[np.float32]]] = {}
    for index, encoding in encodings.items():
        scale, zero = encoding.scale[0], encoding.zero_point[0]
        ranges[_name(tensors[index])] = {
            "min": np.float32((encoding.lowest - zero) * scale),  # type: ignore[dict-item]  # numpy scalars are its arrays
            "max": np.float32((encoding.highest - zero) * scale),  # type: ignore[dict-item]
        }
    kinds = _weighted(model, body, weights, islands)
    for index, (kind, encoding) in kinds.items():
        bound = np.asarray(encoding.scale, np.float32) * np.float32(127)
        shape = [1] * len(tensors[index].shape)
        shape[_axis(kind)] = -1
        bound = bound.reshape(shape)
        ranges[_name(tensors[index])] = {"min": -bound, "max": bound}
    work = quantizer.Quantizer(body.data)
    wide = any(encoding.bits == 16 for encoding in encodings.values())
    whole = recipe.static_wi8_ai16() if wide else recipe.static_wi8_ai8()
    work.load_quantization_recipe([*whole, *_left_float(model, body, encodings, islands)])
    result = read_model(bytes(work.quantize(ranges).quantized_model))
    if wide:
        _narrow_biases(result)
    _verify(model, result, encodings)
    _put_weights(model, result, kinds)
    return result


def _left_float(
    model: Any, body: TfliteBody, encodings: Mapping[int, Encoding], islands: AbstractSet[int]
) -> list[dict[str, Any]]:
    """Quantizer rules for decoding operators and islands in float: an operator's scope is its results' names.

    All inputs together are one more operator to it, as are all outputs, which are float32 where any of them is.
    """
    graph, scopes = model.subgraphs[0], list[tuple[str, str]]()
    if body.decoding:
        scopes.append((f"^{re.escape(DECODING)}", "*"))
    if islands:
        names = "|".join(re.escape(_name(graph.tensors[index])) for index in sorted(islands))
        scopes.append((f"(?:^|;)(?:{names})(?:;|$)", "*"))
    for ends, operation in ((graph.inputs, "INPUT"), (graph.outputs, "OUTPUT")):
        if any(int(index) not in encodings for index in ends):
            scopes.append((".*", operation))
    rest = {"algorithm_key": "no_quantize", "op_config": {}}
    return [{"regex": regex, "operation": operation, **rest} for regex, operation in scopes]


def _islands(
    model: Any, body: TfliteBody, encodings: Mapping[int, Encoding], floats: AbstractSet[str]
) -> frozenset[int]:
    """Results of operators that compute in float: those of the student's, and the operators they were lowered to."""
    graph, found = model.subgraphs[0], set[int]()
    computed = {int(index) for index in graph.inputs}
    for operator in graph.operators:
        outputs = [int(index) for index in operator.outputs]
        values = [index for index in map(int, operator.inputs) if index in computed]
        values = [i for i in (*values, *outputs) if graph.tensors[i].type == schema().TensorType.FLOAT32]
        computed.update(outputs)
        chain = body.nodes.get(outputs[0], ())
        if (chain and chain[0] in floats) or any(i not in encodings and i not in body.decoding for i in values):
            found.update(outputs)
    return frozenset(found)


def _by_tensor(
    model: Any,
    body: TfliteBody,
    activations: Mapping[str, Encoding],
    passing: AbstractSet[str],
    floats: AbstractSet[str],
) -> dict[int, Encoding]:
    """Encoding of each activation tensor: its node's, or its input's where the operator only moves values.

    Tensors inside a float island have none.
    """
    graph = model.subgraphs[0]
    found: dict[int, Encoding] = {}
    used: set[str] = set()
    for index in map(int, graph.inputs):
        for node in body.nodes[index]:
            if node in activations:
                found[index] = activations[node]
                used.add(node)
    for operator in graph.operators:
        kind = operator_name(model, operator)
        for index in map(int, operator.outputs):
            if graph.tensors[index].type != schema().TensorType.FLOAT32 or index in body.decoding:
                continue
            own = [node for node in body.nodes.get(index, ()) if node in activations]
            used |= set(own)
            encoding = activations[own[-1]] if own else None
            moving = kind in TFLITE and TFLITE[kind].transparent
            if moving and floats.isdisjoint(body.nodes.get(index, ())):  # these kernels don't rescale
                source = int(operator.inputs[1 if kind == "SPLIT" else 0])  # of a SPLIT the axis is first
                encoding = found.get(source, encoding)
            if encoding is None and floats:
                continue
            if encoding is None:
                raise ConfigurationError.one(
                    f"no encoding for the output of {kind} (`{_name(graph.tensors[index])}`): "
                    "no tensor of the student has its value",
                    _AGAIN,
                )
            found[index] = encoding
    lost = sorted(set(activations) - used - passing)
    if lost:
        raise ConfigurationError.one(
            f"the TFLite converter has merged {', '.join(lost[:3])}{' and others' * (len(lost) > 3)} into others, "
            "so that they can't have their encodings",
            "use dynamic-int8, or another runtime",
        )
    return found


def _weighted(
    model: Any,
    body: TfliteBody,
    weights: Mapping[str, Encoding],
    islands: AbstractSet[int] = frozenset(),
    *,
    every: bool = True,
) -> dict[int, tuple[str, Encoding]]:
    """Weight tensors with their operator's kind and encoding, outside ``islands``.

    ``every``: no operator with weights may lack one. Raises ConfigurationError where one does, and where there is none
    at all.
    """
    found: dict[int, tuple[str, Encoding]] = {}
    for operator in model.subgraphs[0].operators:
        kind = operator_name(model, operator)
        if weight_axis(kind) is None or int(operator.outputs[0]) in islands:
            continue
        index = int(operator.inputs[1])
        name = body.parameters.get(index)
        if not every and (name is None or name not in weights or kind not in _HYBRID_VERSIONS):
            continue
        if name is None or name not in weights:
            tensor = _name(model.subgraphs[0].tensors[index])
            raise ConfigurationError.one(f"no encoding for the weights of {kind} (`{tensor}`)", _AGAIN)
        found[index] = (kind, weights[name])
    lost = sorted(set(weights) - {body.parameters[index] for index in found})
    if lost and (every or not found):
        raise ConfigurationError.one(f"the TFLite graph has no operator with the weights {', '.join(lost)}", _AGAIN)
    return found


def _verify(model: Any, result: Any, encodings: Mapping[int, Encoding]) -> None:
    """Read the quantized tensors back. Raises ConfigurationError where one is float, or has another encoding."""
    written = {_name(tensor): tensor for tensor in result.subgraphs[0].tensors}
    made = {int(i): operator_name(model, op) for op in model.subgraphs[0].operators for i in op.outputs}
    for index, encoding in encodings.items():
        name = _name(model.subgraphs[0].tensors[index])
        candidates = [t for n, t in written.items() if n in (name, f"{name}_quantized", f"{name}_requant")]
        right = [tensor for tensor in candidates if _carries(tensor, encoding)]
        if not right:
            raise ConfigurationError.one(
                f"the quantizer left {made.get(index, 'the input')} (`{name}`) without its encoding", _AGAIN
            )


def _carries(tensor: Any, encoding: Encoding) -> bool:
    parameters = tensor.quantization
    wanted = schema().TensorType.INT16 if encoding.bits == 16 else schema().TensorType.INT8
    if tensor.type != wanted or parameters is None or parameters.scale is None:
        return False
    same_scale = abs(float(parameters.scale[0]) / encoding.scale[0] - 1) < 1e-5
    return same_scale and int(parameters.zeroPoint[0]) == encoding.zero_point[0]


def _narrow_biases(model: Any) -> None:
    """Store biases as int32 where a layer with 16-bit activations takes them: with int64, its kernel is 70 times
    slower.

    Sums of products are then int32 too, so a layer whose sums might not fit keeps int64. So do depthwise convolutions,
    which have no other kernel.
    """
    graph, types = model.subgraphs[0], schema().TensorType
    for operator in graph.operators:
        options = operator.builtinOptions
        if not hasattr(options, "quantizedBiasType") or len(operator.inputs) < 3 or int(operator.inputs[2]) < 0:
            continue
        weight, bias = (graph.tensors[int(index)] for index in operator.inputs[1:3])
        stored, integers = constant_of(model, weight), constant_of(model, bias)
        if bias.type != types.INT64 or stored is None or integers is None:
            continue
        values = np.frombuffer(integers, np.int64)
        products = np.abs(np.frombuffer(stored, np.int8).astype(np.int64)).reshape(len(values), -1).sum(1)
        if int((products * 2**15 + np.abs(values)).max()) < 2**31:
            bias.buffer, bias.type = add_buffer(model, values.astype(np.int32).tobytes()), types.INT32
            options.quantizedBiasType = types.INT32


def _put_weights(model: Any, result: Any, kinds: Mapping[int, tuple[str, Encoding]]) -> None:
    """Check the quantizer's scales, and write the encoding's own integers, by its own rounding and limit."""
    written = {_name(tensor): tensor for tensor in result.subgraphs[0].tensors}
    for index, (kind, encoding) in kinds.items():
        tensor = model.subgraphs[0].tensors[index]
        ours, stored = _integers(model, index, kind, encoding), written.get(_name(tensor))
        content = None if stored is None else constant_of(result, stored)
        if stored is None or content is None or stored.type != schema().TensorType.INT8:
            raise ConfigurationError.one(f"the quantizer left the weights of {kind} (`{_name(tensor)}`) float", _AGAIN)
        scales = np.asarray(encoding.scale, np.float32)
        if not np.allclose(stored.quantization.scale, scales, rtol=1e-5, atol=0):
            raise ConfigurationError.one(
                f"the quantizer gave the weights of {kind} (`{_name(tensor)}`) another encoding", _AGAIN
            )
        result.buffers[stored.buffer].data = np.frombuffer(np.ascontiguousarray(ours).tobytes(), np.uint8)


def _integers(model: Any, index: int, kind: str, encoding: Encoding) -> NDArray[np.int8]:
    tensor = model.subgraphs[0].tensors[index]
    content = constant_of(model, tensor)
    assert content is not None
    stored = np.frombuffer(content, np.float32).reshape(tuple(tensor.shape))
    moved = encoding if encoding.axis is None else encoding.but(axis=_axis(kind))
    return integers(stored, moved)


def narrow_weights(model: Any, body: TfliteBody, weights: Mapping[str, Encoding]) -> None:
    """Store weights as per-channel int8 constants of hybrid kernels, which quantize activations at run time.

    Those that have no such kernel, or that the converter has merged into others, stay float: the output is the same.
    """
    graph = model.subgraphs[0]
    for index, (kind, encoding) in _weighted(model, body, weights, every=False).items():
        if any(encoding.zero_point):
            raise ConfigurationError.one(f"{kind} can't have these dynamic int8 weights in TFLite", "use float32")
        tensor = graph.tensors[index]
        data = _integers(model, index, kind, encoding)
        if encoding.bits == 4:
            tensor.buffer, tensor.type = add_buffer(model, packed(data)), schema().TensorType.INT4
        else:
            tensor.buffer = add_buffer(model, np.ascontiguousarray(data).tobytes())
            tensor.type = schema().TensorType.INT8
        tensor.quantization = schema().QuantizationParametersT()
        channels = tensor.shape[_axis(kind)]
        scale = encoding.scale if encoding.axis is not None else encoding.scale * int(channels)
        tensor.quantization.scale = np.asarray(scale, np.float32)
        tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
        tensor.quantization.quantizedDimension = _axis(kind)
    for operator in graph.operators:
        kind = operator_name(model, operator)
        if kind in _HYBRID_VERSIONS:
            set_operator_version(model, operator, _HYBRID_VERSIONS[kind])


def narrow_tables(model: Any, tables: Mapping[str, Encoding]) -> None:
    """Store tables of embeddings as int8 constants, by their parameters' names: lookups give float.

    One that the converter has merged into others, or that another operator reads, stays float: it holds the same
    values.
    """
    graph = model.subgraphs[0]
    readers: dict[int, list[str]] = {}
    for operator in graph.operators:
        for index in map(int, operator.inputs):
            readers.setdefault(index, []).append(operator_name(model, operator))
    for index, tensor in enumerate(graph.tensors):
        encoding, content = tables.get(_name(tensor)), constant_of(model, tensor)
        if encoding is None or content is None or set(readers.get(index, ())) != {"EMBEDDING_LOOKUP"}:
            continue
        stored = np.frombuffer(content, np.float32).reshape(tuple(tensor.shape))
        data = np.ascontiguousarray(integers(stored, encoding))
        tensor.buffer, tensor.type = add_buffer(model, data.tobytes()), schema().TensorType.INT8
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale = np.asarray(encoding.scale, np.float32)
        tensor.quantization.zeroPoint = np.zeros(1, np.int64)


def halve_weights(model: Any, only: AbstractSet[str] | None = None) -> None:
    """Store weights, all or those named, as float16 constants behind DEQUANTIZE, which runtimes fold at load."""
    graph = model.subgraphs[0]
    widened: dict[int, int] = {}
    for operator in list(graph.operators):
        if weight_axis(operator_name(model, operator)) is None:
            continue
        index = int(operator.inputs[1])
        tensor = graph.tensors[index]
        content = constant_of(model, tensor)
        if content is None or (tensor.type != schema().TensorType.FLOAT32 and index not in widened):
            continue
        if only is not None and index not in widened and _name(tensor) not in only:
            continue
        if index not in widened:
            values = np.frombuffer(content, np.float32)
            if float(np.abs(values).max(initial=0.0)) > float(np.finfo(np.float16).max):
                raise ConfigurationError.one(
                    f"`{_name(tensor)}` has values beyond 65504, the largest of float16", "use float32"
                )
            shape = [int(size) for size in tensor.shape]
            wide = add_tensor(model, f"{_name(tensor)}/wide", shape, schema().TensorType.FLOAT32)
            tensor.buffer = add_buffer(model, values.astype(np.float16).tobytes())
            tensor.type = schema().TensorType.FLOAT16
            widened[index] = wide
        inputs = np.array(operator.inputs, np.int32)
        inputs[1] = widened[index]
        operator.inputs = inputs
    for index, wide in widened.items():
        add_operator(model, "DEQUANTIZE", [index], [wide], at=0, version=3)


def _axis(kind: str) -> int:
    axis = weight_axis(kind)
    assert axis is not None
    return axis


def _name(tensor: Any) -> str:
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
