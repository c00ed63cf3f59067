"""What each runtime can do with a precision."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.artefacts import Backend, Precision

__all__ = ["PRECISIONS", "precisions_of"]

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
