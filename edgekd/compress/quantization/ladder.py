"""The precision ladder: which rung a student can have on a backend, and the operator that stops it where it can't.

Static int8 needs every operator to have an integer form on the backend. The other rungs only change how weights are
stored. Where 8-bit products saturate (x86 without an 8-bit dot product), int8 stays possible: OpenVINO's weights are
kept within 63 here, and the ONNX exporter stores weights as uint8 with zero point 128 for ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import fx

from edgekd.artefacts import Backend, Precision
from edgekd.compress.quantization.rules import is_clamp_at_zero, is_tensor
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, operator_of, spec_of, trace

__all__ = ["problems_with", "weight_limit"]


def weight_limit(backend: Backend | None, fingerprint: Fingerprint | None) -> int:
    """Largest magnitude of a weight's integer: 63 where OpenVINO's products would saturate, else 127."""
    saturates = fingerprint is not None and fingerprint.saturates_int8
    return 63 if saturates and backend is not None and backend.runtime == "openvino" else 127


def problems_with(
    student: Student, precision: Precision, backend: Backend | None = None, traced: Traced | None = None
) -> Sequence[Problem]:
    """Why a student can't have a precision on a backend; empty where it can. Raises ConfigurationError as `trace`."""
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
    return [
        Problem(
            f"int8{where}: `{traced.keys[node.name]}` {reason}",
            "use dynamic-int8, which quantizes weights alone, or replace the operator",
        )
        for node in nodes
        if (is_tensor(node) or _is_several(node)) and (reason := _stops(node, traced))
    ]


def _is_several(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (list, tuple))


def _stops(node: fx.Node, traced: Traced) -> str:
    name = operator_of(node)
    if _is_several(node):
        return f"has several results, and no integer form ({name})"
    if name == "batch_norm":
        return "is a BatchNorm that can't be folded into a convolution: it follows none, or its class computes more"
    if spec_of(node).encodes == "none":
        return f"has no integer form ({name})"
    if spec_of(node).weighted:
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.name not in traced.parameters:
            return "takes its weight from a computation"
    elif name in ("hardtanh", "clamp") and not is_clamp_at_zero(node):
        return "clamps to a range that doesn't begin at zero"
    elif name == "pad" and len(node.args) > 3 and node.args[3]:
        return f"pads with {node.args[3]}, and only zero stays exact"
    elif name in ("add", "sub", "mul") and not all(
        isinstance(part, fx.Node) and part.name in traced.keys for part in node.args[:2]
    ):
        return "takes a constant, and only two computed tensors have an integer form"
    return ""
