"""Kernels of an .onnx file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.export.kernels.graph import FileOperator, Shape, fused, without_batch
from edgekd.ir.kernels import Kernels
from edgekd.ir.operators import ONNX, operator_kind

__all__ = ["onnx_kernels"]

_SMALL = 64  # numbers


def onnx_kernels(path: Path) -> Kernels:
    """Kernels of the main graph. Raises ValueError on a damaged file or shapes that aren't fixed; OSError."""
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(_with_shapes(path), data_prop=True)
    except Exception as error:  # onnx's errors on a stranger's file have no common base
        raise ValueError(
            f"it is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    graph = model.graph
    matrices = {tensor.name: tuple(int(side) for side in tensor.dims) for tensor in graph.initializer}
    batch = next((_sides(value)[0] for value in graph.input if value.name not in matrices and _sides(value)), 1)
    shapes: dict[str, Shape] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = without_batch(_sides(value), batch)
    operators = []
    for node in graph.node:
        fixed = node.op_type == "Shape" or all(name in matrices or not name for name in node.input)
        if fixed:  # known before the first inference
            first = next((matrices[name] for name in node.input if name), ())
            matrices.update(dict.fromkeys(node.output, first))
            continue
        if node.op_type == "DynamicQuantizeLinear":  # its scale and zero point are no activations
            matrices.update(dict.fromkeys(node.output[1:], ()))
        operators.append(_operator(node, matrices, shapes))
    return fused(operators, shapes)


def _with_shapes(path: Path) -> Any:
    """Load the model without external weights, except small tensors, which may be shapes."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if uses_external_data(tensor) and math.prod(tensor.dims) <= _SMALL:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def _operator(node: Any, matrices: Mapping[str, tuple[int, ...]], shapes: Mapping[str, Shape]) -> FileOperator:
    kind = operator_kind(ONNX, node.op_type)
    filters = next((matrices[name] for name in node.input if len(matrices.get(name, ())) > 1), ())
    attributes = {attribute.name: attribute for attribute in node.attribute}
    windowed = kind == "conv" and len(filters) > 2
    if windowed and "group" in attributes and attributes["group"].i > 1 and filters[1] == 1:
        kind = "depthwise"
    return FileOperator(
        kind=kind,
        reads=tuple(name for name in node.input if name and name not in matrices),
        writes=node.output[0],
        taps=math.prod(filters[2:]) if windowed else 1,
        stride=int(max(attributes["strides"].ints)) if windowed and "strides" in attributes else 1,
        weights=math.prod(filters) if filters and kind in ("conv", "depthwise", "dense") else 0,
        transposed=node.op_type == "ConvTranspose",
        inner=(0, *(shapes.get(node.input[0]) or matrices.get(node.input[0], ())))[-1] if kind == "dense" else 0,
        outer=(0, *shapes.get(node.output[0], ()))[-1] if kind == "dense" else 0,
    )


def _sides(value: Any) -> list[int]:
    dims = value.type.tensor_type.shape.dim
    return [int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in dims]
