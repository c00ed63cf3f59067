"""Operator times of a runtime, from its own profile: convolutions, pools, additions and others.

Runtimes fuse what they can and name operators differently at each precision, so times are added up by families of
operators (`edgekd.measure.never_slower`). Evidence kind: the measurement's own.
"""

from __future__ import annotations

from edgekd.devices._protocol import Measurement, OperatorTime, Outcome
from edgekd.evidence import Figure
from edgekd.ir.kernels import Kernels
from edgekd.ir.operators import FAMILY_KERNELS
from edgekd.measure.never_slower import family_of
from edgekd.profiling.record import OperatorKind

__all__ = ["operator_kinds", "why_none"]


def operator_kinds(network: str, kernels: Kernels, measurement: Measurement) -> tuple[OperatorKind, ...]:
    """Families of operators of one network, slowest first. None where the runtime reported none."""
    found: dict[str, list[OperatorTime]] = {}
    only_depthwise = {"conv", "depthwise"} & {kernel.kind for kernel in kernels} == {"depthwise"}
    for operator in measurement.operators:
        family = family_of(operator)
        # some runtimes call a depthwise convolution just a convolution
        family = "DepthwiseConv" if family == "Conv" and only_depthwise else family
        found.setdefault(family, []).append(operator)
    kinds = [_kind(network, family, operators, kernels, measurement) for family, operators in found.items()]
    return tuple(sorted(kinds, key=lambda kind: -kind.time_us.value))


def why_none(measurement: Measurement) -> str:
    """Reason why a profile has no operators; empty where it has some."""
    if measurement.operators:
        return ""
    if measurement.outcome is not Outcome.OK:
        return f"{measurement.outcome.value} {measurement.detail}".strip()
    return measurement.operators_detail or "this backend doesn't tell them"


def _kind(
    network: str, family: str, operators: list[OperatorTime], kernels: Kernels, measurement: Measurement
) -> OperatorKind:
    time_us = sum(operator.time_us for operator in operators)
    mine = [kernel for kernel in kernels if kernel.kind == FAMILY_KERNELS.get(family)]
    macs = sum(kernel.macs for kernel in mine)
    time = Figure(
        metric="latency.operators",
        value=time_us,
        unit="us",
        kind=measurement.kind,
        subject=measurement.fingerprint,
        method=f"mean over calls of {len(operators)} operators of {network}, by the runtime's own profile",
    )
    # fewer operators than kernels: some were too short to be reported, or were fused into others
    rate = None
    if macs > 0 and time_us > 0 and len(operators) >= len(mine):
        rate = time.but(
            metric="compute.operators",
            value=1e6 * macs / time_us,
            unit="MAC/s",
            method=f"{macs:,} multiply-adds, counted, over the {time.method}",
        )
    return OperatorKind(network=network, kind=family, count=len(operators), time_us=time, macs_per_s=rate)
