"""The precision ladder: which rung a student can have on a backend, and the operator that stops it where it can't.

Static int8 needs one convolution or linear layer that computes in integers; what has no integer form stays in float
(`placement`). The other rungs only change how weights are stored. Where 8-bit products saturate (x86 without an 8-bit
dot product), int8 stays possible: OpenVINO's weights are kept within 63 here, and the ONNX exporter stores weights as
uint8 with zero point 128 for ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch

from edgekd.artefacts import Backend, Precision
from edgekd.compress.quantization.placement import float_operators
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, spec_of, trace

__all__ = ["problems_with", "weight_limit"]


def weight_limit(backend: Backend | None, fingerprint: Fingerprint | None) -> int:
    """Largest magnitude of a weight's integer: 63 where OpenVINO's products would saturate, else 127."""
    saturates = fingerprint is not None and fingerprint.saturates_int8
    return 63 if saturates and backend is not None and backend.runtime == "openvino" else 127


def problems_with(
    student: Student,
    precision: Precision,
    backend: Backend | None = None,
    traced: Traced | None = None,
    keep_float: Sequence[str] = (),
) -> Sequence[Problem]:
    """Why a student can't have a precision on a backend; empty where it can.

    ``keep_float`` as in `placement.float_operators`. Raises ConfigurationError as `trace`.
    """
    where = f" on {backend}" if backend else ""
    if backend and precision not in precisions_of(backend):
        return [Problem(f"{backend} has no {precision.value} models", "choose another precision or backend")]
    if precision is Precision.FLOAT32:
        return []
    traced = traced or trace(student, decomposed=False)
    nodes = [node for node in traced.program.graph.nodes if node.op == "call_function" and node.name in traced.keys]
    if not any(spec_of(node).weighted for node in nodes):
        return [Problem(f"{precision.value}{where}: this student has no convolution or linear layer", "use float32")]
    if precision is Precision.FLOAT16:
        largest = float(torch.finfo(torch.float16).max)
        return [
            Problem(
                f"float16{where}: `{name}` has values beyond {largest:g}, the largest of half precision", "use int8"
            )
            for name, tensor in traced.student.module.named_parameters()
            if tensor.numel() and float(tensor.detach().abs().max()) > largest
        ]
    if precision is Precision.DYNAMIC_INT8:
        return []
    if precision is not Precision.INT8:
        assert_never(precision)
    floats = float_operators(traced, keep_float)
    weighted = [traced.keys[node.name] for node in nodes if spec_of(node).weighted]
    if any(key not in floats for key in weighted):
        return []
    return [
        Problem(
            f"int8{where}: `{key}` {floats[key]}",
            "use dynamic-int8, which quantizes weights alone, or replace the operator",
        )
        for key in weighted
    ]
