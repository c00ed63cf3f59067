"""Precisions a student can have on a backend, and the operator that rules one out.

Static int8 needs at least one convolution or linear layer that computes in integers; operators without an integer form
stay in float (`placement`). The other precisions only change how weights are stored. Where 8-bit products saturate (x86
without an 8-bit dot product), int8 stays possible: OpenVINO's weights are limited to 63 here, and the ONNX exporter
stores weights as uint8 with zero point 128 for ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgekd.artefacts import Backend
from edgekd.compress.quantization.placement import float_operators
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.ir.numerics import Precision, TensorType
from edgekd.ir.support import unsupported
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, spec_of, trace

__all__ = ["problems_with", "weight_limit"]


def weight_limit(weights: TensorType, backend: Backend | None, fingerprint: Fingerprint | None) -> int:
    """Return the largest magnitude of a weight's integer: 63 instead of 127 if OpenVINO's products would saturate."""
    saturates = fingerprint is not None and fingerprint.saturates_int8
    return min(weights.highest, 63 if saturates and backend is not None and backend.runtime == "openvino" else 127)


def problems_with(
    student: Student,
    precision: Precision,
    backend: Backend | None = None,
    traced: Traced | None = None,
    keep_float: Sequence[str] = (),
) -> Sequence[Problem]:
    """Return why a student can't have a precision on a backend; empty if it can.

    ``keep_float`` as in `placement.float_operators`. Raises ConfigurationError like `trace`.
    """
    where = f" on {backend}" if backend else ""
    if backend and (problems := unsupported(precision, backend)):
        return problems
    if precision is Precision.FLOAT32:
        return []
    traced = traced or trace(student, decomposed=False)
    nodes = [node for node in traced.program.graph.nodes if node.op == "call_function" and node.name in traced.keys]
    if not any(spec_of(node).weighted for node in nodes):
        return [Problem(f"{precision.value}{where}: this student has no convolution or linear layer", "use float32")]
    if not precision.weights.is_integer:
        largest = float(torch.finfo(torch.float16).max)
        return [
            Problem(
                f"{precision.value}{where}: `{name}` has values beyond {largest:g}, the largest of half precision",
                "use int8",
            )
            for name, tensor in traced.student.module.named_parameters()
            if tensor.numel() and float(tensor.detach().abs().max()) > largest
        ]
    if not precision.is_static:
        return []
    floats = float_operators(traced, keep_float)
    weighted = [traced.keys[node.name] for node in nodes if spec_of(node).weighted]
    if any(key not in floats for key in weighted):
        return []
    return [
        Problem(
            f"{precision.value}{where}: `{key}` {floats[key]}",
            "use dynamic-int8, which quantizes weights alone, or replace the operator",
        )
        for key in weighted
    ]
