"""Operators of a .tflite file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgekd.export.flatbuffer import constant_of, operator_name, read_model, schema
from edgekd.export.kernels.graph import Operator, OperatorKind, Shape, fused
from edgekd.ir.kernels import Kernels

__all__ = ["tflite_kernels"]

_KINDS: dict[str, OperatorKind] = {
    **dict.fromkeys(("CONV_2D", "TRANSPOSE_CONV", "CONV_3D"), "conv"),
    "DEPTHWISE_CONV_2D": "depthwise",
    **dict.fromkeys(("FULLY_CONNECTED", "BATCH_MATMUL"), "dense"),
    "ADD": "add",
    **dict.fromkeys(("MEAN", "AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX", "SUM"), "pool"),
    **dict.fromkeys(
        (
            *("CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE"),
            *("STRIDED_SLICE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE", "GATHER", "GATHER_ND"),
            *("DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "TILE"),
        ),
        "move",
    ),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), "pad"),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "HARD_SWISH", "MINIMUM", "MAXIMUM"), "clamp"),
    **dict.fromkeys(("MUL", "SUB", "DIV"), "scale"),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE", "DEQUANTIZE", "CAST"), "free"),
}


def tflite_kernels(path: Path) -> Kernels:
    """Kernels of the first graph. Raises ValueError on a damaged file or shapes that aren't fixed; OSError."""
    model = read_model(path.read_bytes())
    graph = model.subgraphs[0]
    constant = {index for index, tensor in enumerate(graph.tensors) if constant_of(model, tensor) is not None}
    operators = []
    for operator in graph.operators or []:
        kind = _KINDS.get(operator_name(model, operator), "other")
        given = [int(index) for index in operator.inputs if index >= 0]
        if operator_name(model, operator) == "SHAPE" or constant.issuperset(given):  # known before the first inference
            constant.update(map(int, operator.outputs))
            continue
        filters = [index for index in given[:2] if index in constant] if kind in ("conv", "depthwise", "dense") else []
        shape = [int(side) for side in graph.tensors[filters[0]].shape] if filters else []
        windowed = kind in ("conv", "depthwise") and len(shape) == 4
        operators.append(
            Operator(
                kind=kind,
                reads=tuple(str(index) for index in given if index not in constant),
                writes=str(int(operator.outputs[0])),
                taps=shape[1] * shape[2] if windowed else 1,
                stride=_stride(operator) if windowed else 1,
                weights=math.prod(shape) if shape else 0,
            )
        )
    return fused(operators, {str(index): _shape(tensor) for index, tensor in enumerate(graph.tensors)})


def _stride(operator: Any) -> int:
    options = operator.builtinOptions
    return int(max(getattr(options, "strideH", 1), getattr(options, "strideW", 1)))


def _shape(tensor: Any) -> Shape:
    """Channels are last in TFLite."""
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    sides = [int(side) for side in (signature if signature is not None else ())]
    if tensor.type == schema().TensorType.STRING or not sides:
        return ()
    without = sides[1:] if len(sides) > 1 else sides
    return (without[-1], *without[:-1])
