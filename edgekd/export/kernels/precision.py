"""Precision of a model file: the number formats of its convolutions and matrices, by the file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, Place
from edgekd.export.tflite.flatbuffer import constant_of, operator_name, read_model, schema
from edgekd.ir.numerics import Precision
from edgekd.ir.operators import TFLITE, operator_kind

__all__ = ["precision_of_file"]


def precision_of_file(artefact: Artefact) -> Precision:
    """Precision of a file. Raises ConfigurationError on one that can't be read."""
    try:
        return _READERS[artefact.format](artefact.path)
    except (ValueError, OSError, AttributeError, IndexError, TypeError) as error:
        raise ConfigurationError.one(
            f"its precision can't be read: {error}", "copy or export it again", Place(str(artefact.path))
        ) from error


def _tflite(path: Path) -> Precision:
    """Precision by the inputs and weights of its matrix products. An int8 file may have others."""
    model, types = read_model(path.read_bytes()), schema().TensorType
    graph = model.subgraphs[0]
    halves = any(tensor.type == types.FLOAT16 and constant_of(model, tensor) is not None for tensor in graph.tensors)
    found = set[Precision]()
    for operator in graph.operators or []:
        if operator_kind(TFLITE, operator_name(model, operator)) not in ("conv", "depthwise", "dense"):
            continue
        given = [graph.tensors[index] for index in operator.inputs if index >= 0]
        floats = [tensor for tensor in given if constant_of(model, tensor) is None and tensor.type == types.FLOAT32]
        if any(tensor.type == types.INT16 for tensor in given):
            found.add(Precision.INT16X8)
        elif floats and any(tensor.type == types.INT4 for tensor in given):
            found.add(Precision.INT4_WEIGHTS)
        elif any(tensor.type in (types.INT8, types.UINT8, types.INT4) for tensor in given):
            found.add(Precision.DYNAMIC_INT8 if floats else Precision.INT8)
    for precision in (Precision.INT16X8, Precision.INT8, Precision.INT4_WEIGHTS, Precision.DYNAMIC_INT8):
        if precision in found:
            return precision
    return Precision.FLOAT16 if halves else Precision.FLOAT32


def _onnx(path: Path) -> Precision:
    """Precision by activations: 8 bits are static int8, quantized on the way dynamic; else 8-bit weights alone."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ValueError("it is damaged") from error
    kinds = {node.op_type for node in graph.node}
    constants = {tensor.name for tensor in graph.initializer}
    if any(tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) for tensor in graph.initializer):
        return Precision.INT4_WEIGHTS
    if kinds & {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}:
        return Precision.DYNAMIC_INT8
    if kinds & {"QLinearConv", "QLinearMatMul"}:
        return Precision.INT8
    if any(node.op_type == "QuantizeLinear" and node.input[0] not in constants for node in graph.node):
        return Precision.INT8
    bytes_ = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    if "DequantizeLinear" in kinds or any(len(t.dims) > 1 and t.data_type in bytes_ for t in graph.initializer):
        return Precision.INT8_WEIGHTS
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return Precision.FLOAT16 if halves else Precision.FLOAT32


def _openvino(path: Path) -> Precision:
    """Precision by FakeQuantize layers, the types of constants, and the options in `runtime_options`."""
    try:
        root = ElementTree.parse(path).getroot()
        layers = root.findall("./layers/layer")
    except ElementTree.ParseError as error:
        raise ValueError(f"it is damaged: {error}") from error
    if any(layer.attrib.get("type") == "FakeQuantize" for layer in layers):
        return Precision.INT8
    kinds = {
        data.attrib.get("element_type", "")
        for layer in layers
        if layer.attrib.get("type") == "Const" and (data := layer.find("data")) is not None
    }
    options = {option.tag: option.get("value") for option in root.findall("./rt_info/runtime_options/*")}
    if kinds & {"i4", "u4"}:
        return Precision.INT4_WEIGHTS
    if kinds & {"i8", "u8"}:
        plain = options.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") == "0"
        return Precision.INT8_WEIGHTS if plain else Precision.DYNAMIC_INT8
    if options.get("INFERENCE_PRECISION_HINT") == "bf16":
        return Precision.BF16
    return Precision.FLOAT16 if "f16" in kinds else Precision.FLOAT32


_READERS: Mapping[Format, Callable[[Path], Precision]] = {
    Format.TFLITE: _tflite,
    Format.ONNX: _onnx,
    Format.OPENVINO: _openvino,
}
