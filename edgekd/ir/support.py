"""What each runtime can do with a precision, and with an operator at one."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.artefacts import Backend, Precision

__all__ = ["ONNXRUNTIME_INTEGER", "ONNXRUNTIME_WIDENED", "PRECISIONS", "precisions_of"]

PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "litert": (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8),
    "onnxruntime": (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8),
    "openvino": (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8),
}
"""Precisions by runtime; an operator of a given student may still rule one out. Each is listed by name: a new precision
is on no runtime until its exporter, the integer reference and parity support it."""


def precisions_of(backend: Backend) -> tuple[Precision, ...]:
    """The precisions a backend's runtime can have at all; empty for a runtime that is not known."""
    return PRECISIONS.get(backend.runtime, ())


ONNXRUNTIME_INTEGER = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "Mul", "Sigmoid", "Softmax"}
)
"""ONNX operators that ONNX Runtime's CPU provider computes with integers between DequantizeLinear and QuantizeLinear.
Seen in what version 1.32 makes of a file; it leaves Sub, Div, ReduceMean, Max and ConvTranspose in float."""

ONNXRUNTIME_WIDENED = frozenset({"Pad"})
"""Operators that only move values, and that it computes in float all the same: between a pair, it pads what was
dequantized."""
