"""Operators of an .onnx file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgekd.export.kernels.graph import Operator, OperatorKind, Shape, fused
from edgekd.ir.kernels import Kernels

__all__ = ["onnx_kernels"]

_KINDS: dict[str, OperatorKind] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"), "conv"),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"), "dense"),
    "Add": "add",
    **dict.fromkeys(
        ("GlobalAveragePool", "AveragePool", "MaxPool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum"), "pool"
    ),
    **dict.fromkeys(
        ("Concat", "Split", "Slice", "Resize", "Transpose", "Gather", "GatherND", "DepthToSpace", "Tile"), "move"
    ),
    "Pad": "pad",
    **dict.fromkeys(("Relu", "Clip", "HardSwish"), "clamp"),
    **dict.fromkeys(("Mul", "Sub", "Div"), "scale"),
    **dict.fromkeys(
        (
            *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear"),
            *("DynamicQuantizeLinear", "BatchNormalization"),
        ),
        "free",
    ),
}


_SMALL = 64  # numbers


def onnx_kernels(path: Path) -> Kernels:
    """Kernels of the main graph. Raises ValueError on a damaged file or shapes that aren't fixed; OSError."""
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(_with_shapes(path), data_prop=True)
    except Exception as error:  # what onnx raises on a stranger's file has no common base
        raise ValueError(
            f"it is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    graph = model.graph
    matrices = {tensor.name: tuple(int(side) for side in tensor.dims) for tensor in graph.initializer}
    shapes: dict[str, Shape] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = _shape(value)
    operators = []
    for node in graph.node:
        fixed = node.op_type == "Shape" or all(name in matrices or not name for name in node.input)
        if fixed:  # known before the first inference
            first = next((matrices[name] for name in node.input if name), ())
            matrices.update(dict.fromkeys(node.output, first))
            continue
        operators.append(_operator(node, matrices))
    return fused(operators, shapes)


def _with_shapes(path: Path) -> Any:
    """The model without the weights outside it, but with what is small there: it may be a shape."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if uses_external_data(tensor) and math.prod(tensor.dims) <= _SMALL:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def _operator(node: Any, matrices: dict[str, tuple[int, ...]]) -> Operator:
    kind = _KINDS.get(node.op_type, "other")
    filters = next((matrices[name] for name in node.input if len(matrices.get(name, ())) > 1), ())
    attributes = {attribute.name: attribute for attribute in node.attribute}
    windowed = kind == "conv" and len(filters) > 2
    if windowed and "group" in attributes and attributes["group"].i > 1 and filters[1] == 1:
        kind = "depthwise"
    return Operator(
        kind=kind,
        reads=tuple(name for name in node.input if name and name not in matrices),
        writes=node.output[0],
        taps=math.prod(filters[2:]) if windowed else 1,
        stride=int(max(attributes["strides"].ints)) if windowed and "strides" in attributes else 1,
        weights=math.prod(filters) if filters and kind in ("conv", "depthwise", "dense") else 0,
    )


def _shape(value: Any) -> Shape:
    dims = value.type.tensor_type.shape.dim
    sides = [int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in dims]
    return tuple(sides[1:] if len(sides) > 1 else sides)
