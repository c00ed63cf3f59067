"""What each runtime can do with a precision, and with an operator at one."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.artefacts import Backend
from edgekd.errors import Problem
from edgekd.ir.numerics import Precision

__all__ = ["COMPARED", "ONNXRUNTIME_INTEGER", "ONNXRUNTIME_WIDENED", "PRECISIONS", "precisions_of", "unsupported"]

COMPARED = (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8)
"""What a search compares where the recipe fixes no precision, and every runtime has. Others are asked for by name."""

PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "litert": (*COMPARED, Precision.INT16X8),
    "onnxruntime": (*COMPARED, Precision.INT8_WEIGHTS),
    "openvino": (*COMPARED, Precision.BF16, Precision.INT8_WEIGHTS),
}
"""Precisions by runtime; an operator of a given student may still rule one out. Each is listed by name: a new precision
is on no runtime until its exporter, the integer reference and parity support it."""


def precisions_of(backend: Backend) -> tuple[Precision, ...]:
    """The precisions a backend's runtime can have at all; empty for a runtime that is not known."""
    return PRECISIONS.get(backend.runtime, ())


def unsupported(precision: Precision, backend: Backend) -> list[Problem]:
    """Why a backend can't have a model of this precision, whatever the model; empty where it can."""
    if precision in precisions_of(backend):
        return []
    having = ", ".join(runtime for runtime, found in PRECISIONS.items() if precision in found)
    return [Problem(f"{backend} has no {precision.value} models", f"use {having}" if having else "use another")]


ONNXRUNTIME_INTEGER = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "Mul", "Sigmoid", "Softmax"}
)
"""ONNX operators that ONNX Runtime's CPU provider computes with integers between DequantizeLinear and QuantizeLinear.
Seen in what version 1.32 makes of a file; it leaves Sub, Div, ReduceMean, Max and ConvTranspose in float."""

ONNXRUNTIME_WIDENED = frozenset({"Pad"})
"""Operators that only move values, and that it computes in float all the same: between a pair, it pads what was
dequantized."""
