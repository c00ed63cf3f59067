"""Runtime support of precisions, and of operators at a precision."""

from __future__ import annotations

from edgekd.artefacts import Backend
from edgekd.errors import Problem
from edgekd.ir.backends import BACKENDS
from edgekd.ir.numerics import Precision

__all__ = ["COMPARED", "ONNXRUNTIME_INTEGER", "ONNXRUNTIME_WIDENED", "precisions_of", "unsupported"]

COMPARED = (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8)
"""Precisions that a search compares unless the recipe fixes one; all runtimes have them. Others must be named."""


def precisions_of(backend: Backend) -> tuple[Precision, ...]:
    """Return the precisions a backend can have; empty if it is not registered.

    An operator of a given student may still rule one out.
    """
    spec = BACKENDS.get(str(backend))
    return () if spec is None else spec.precisions


def unsupported(precision: Precision, backend: Backend) -> list[Problem]:
    """Return why a backend can't have models of this precision; empty if it can."""
    if precision in precisions_of(backend):
        return []
    having = ", ".join(dict.fromkeys(spec.runtime.name for spec in BACKENDS.values() if precision in spec.precisions))
    return [Problem(f"{backend} has no {precision.value} models", f"use {having}" if having else "use another")]


ONNXRUNTIME_INTEGER = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "Mul", "Sigmoid", "Softmax"}
)
"""ONNX operators that ONNX Runtime's CPU provider computes with integers between DequantizeLinear and QuantizeLinear.
Seen in what version 1.32 makes of a file; it leaves Sub, Div, ReduceMean, Max and ConvTranspose in float."""

ONNXRUNTIME_WIDENED = frozenset({"Pad"})
"""Operators that only move values, and that it computes in float all the same: between a pair, it pads what was
dequantized."""
