"""Kernels of a .tflite file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgekd.export.kernels.graph import FileOperator, Shape, fused, without_batch
from edgekd.export.tflite.flatbuffer import constant_of, operator_name, read_model, schema
from edgekd.ir.kernels import Kernels
from edgekd.ir.operators import TFLITE, operator_kind

__all__ = ["tflite_kernels"]


def tflite_kernels(path: Path) -> Kernels:
    """Kernels of the first graph. Raises ValueError on a damaged file or shapes that aren't fixed; OSError."""
    model = read_model(path.read_bytes())
    graph = model.subgraphs[0]
    constant = {index for index, tensor in enumerate(graph.tensors) if constant_of(model, tensor) is not None}
    operators = []
    for operator in graph.operators or []:
        name = operator_name(model, operator)
        kind = operator_kind(TFLITE, name)
        given = [int(index) for index in operator.inputs if index >= 0]
        if name == "SHAPE" or constant.issuperset(given):  # known before the first inference
            constant.update(map(int, operator.outputs))
            continue
        # a transposed convolution has its result's shape in front of its weights
        sides = [[int(side) for side in graph.tensors[index].shape] for index in given[:2] if index in constant]
        shape = next((part for part in sides if len(part) > 1), []) if kind in ("conv", "depthwise", "dense") else []
        windowed = kind in ("conv", "depthwise") and len(shape) == 4
        operators.append(
            FileOperator(
                kind=kind,
                reads=tuple(str(index) for index in given if index not in constant),
                writes=str(int(operator.outputs[0])),
                taps=shape[1] * shape[2] if windowed else 1,
                stride=_stride(operator) if windowed else 1,
                weights=math.prod(shape) if shape else 0,
                transposed=name == "TRANSPOSE_CONV",
                inner=_inner(operator, *(graph.tensors[index] for index in given[:2])) if kind == "dense" else 0,
                outer=(0, *_sides(graph.tensors[int(operator.outputs[0])]))[-1] if kind == "dense" else 0,
            )
        )
    batch = next((its[0] for index in graph.inputs if (its := _sides(graph.tensors[int(index)]))), 1)
    return fused(operators, {str(index): _shape(tensor, batch) for index, tensor in enumerate(graph.tensors)})


def _stride(operator: Any) -> int:
    options = operator.builtinOptions
    return int(max(getattr(options, "strideH", 1), getattr(options, "strideW", 1)))


def _inner(operator: Any, first: Any, second: Any) -> int:
    """Length of the sums of a matrix product. The weights of a linear layer are (out, in)."""
    if not hasattr(operator.builtinOptions, "adjX"):
        return int(second.shape[-1])
    return int(first.shape[-2 if operator.builtinOptions.adjX else -1])


def _shape(tensor: Any, batch: int) -> Shape:
    """Shape with channels first; they are last in TFLite."""
    sides = _sides(tensor)
    if tensor.type == schema().TensorType.STRING or not sides:
        return ()
    without = without_batch(sides, batch)
    return (without[-1], *without[:-1])


def _sides(tensor: Any) -> list[int]:
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return [int(side) for side in (signature if signature is not None else ())]
