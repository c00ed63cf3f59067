"""Is a file fully integer? The operators that compute in floating point, for targets that have no floating point unit.

Converting an integer file's float32 input or output counts: ask for uint8 or int8 ends.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.artefacts import Artefact, Format

__all__ = ["float_operators"]


def float_operators(path: Path) -> list[str]:
    """Operators of a model file with a floating-point value in or out, as ``KIND (tensor)``; none where it is integer.

    In ONNX an operator between DequantizeLinear and QuantizeLinear is integer where ONNX Runtime has an integer kernel
    of its kind. Raises UnknownName on another suffix, OSError.
    """
    file_format = Artefact.of(path).format
    return {Format.TFLITE: _tflite, Format.ONNX: _onnx, Format.OPENVINO: _openvino}[file_format](path)


def _tflite(path: Path) -> list[str]:
    from edgekd.export.flatbuffer import operator_name, read_model, schema

    model = read_model(path.read_bytes())
    types = schema().TensorType
    floats = {types.FLOAT32, types.FLOAT16, types.FLOAT64}
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[int(i)] for i in (*operator.inputs, *operator.outputs) if int(i) >= 0]
            if any(tensor.type in floats for tensor in tensors):
                name = graph.tensors[int(operator.outputs[0])].name
                name = name.decode() if isinstance(name, bytes) else name
                found.append(f"{operator_name(model, operator)} ({name})")
    return found


_ONNX_INTEGER = frozenset({"Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "AveragePool", "Concat", "Relu"})
_ONNX_MOVING = frozenset({"Transpose", "Reshape", "Flatten", "MaxPool", "Pad", "Squeeze", "Unsqueeze", "Slice"})


def _onnx(path: Path) -> list[str]:
    import onnx

    model = onnx.load_model_from_string(path.read_bytes())
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    constants = {tensor.name for tensor in model.graph.initializer}
    ends = {value.name for value in (*model.graph.input, *model.graph.output) if value.type.tensor_type.elem_type == 1}
    integer_values = {
        value.name
        for value in (*model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    }
    found = []
    for node in model.graph.node:
        label = f"{node.op_type} ({node.output[0]})"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            if ends & {node.input[0], node.output[0]}:
                found.append(label)
            continue
        from_integers = all(
            name in constants or name in integer_values or getattr(made.get(name), "op_type", "") == "DequantizeLinear"
            or (node.op_type == "Relu" and getattr(made.get(name), "op_type", "") in _ONNX_INTEGER)
            for name in node.input
            if name
        )  # fmt: skip
        allowed = {"QuantizeLinear", "Relu", *(("DequantizeLinear",) if node.op_type in _ONNX_MOVING else ())}
        to_integers = set(readers.get(node.output[0], [])) <= allowed and node.output[0] not in ends
        moves = node.op_type in _ONNX_MOVING and from_integers
        if not (moves or (node.op_type in _ONNX_INTEGER and from_integers and to_integers)):
            found.append(label)
    return found


def _openvino(path: Path) -> list[str]:
    """As OpenVINO compiles it for this CPU: which layers are integer is the plug-in's choice, not the file's."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        precision = str(info["runtimePrecision"].astype(str)) if "runtimePrecision" in info else ""
        if kind in ("Input", "Output", "Const", "Parameter", "Result", ""):
            continue
        if precision.lower() not in ("u8", "i8", "i32", "i64", "u64", "u32"):
            found.append(f"{kind} ({layer.get_friendly_name()})")
    return found
