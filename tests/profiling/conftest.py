"""A profile on paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.artefacts import Backend
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.numerics import Precision
from edgekd.profiling.record import (
    BehaviourProfile,
    DeploymentProfile,
    MemoryProfile,
    OperatorKind,
    Probed,
    ProfileReport,
    Streamed,
    Sustained,
    Threaded,
)
from edgekd.testing.fakes.device import fake_fingerprint

LITERT = Backend.model_validate("litert/xnnpack")


def figure(value: float, metric: str = "latency.p5", unit: str = "us") -> Figure:
    return Figure(
        metric=metric,
        value=value,
        unit=unit,
        kind=EvidenceKind.MEASURED,
        subject="0" * 64,
        method="on paper",
        low=0.98 * value,
        high=1.02 * value,
        confidence=0.95,
    )


def stair(width: int, us: float) -> Probed:
    macs = 1000 * width * width
    return Probed(name=f"width {width}", width=width, macs=macs, elements=500 * width, p5_us=figure(us))


def deployment(precision: Precision = Precision.FLOAT32, **changes) -> DeploymentProfile:
    """Kernels of 16 channels: a step after each 16."""
    width_sweep = tuple(stair(width, 10.0 * (-(-width // 16)) ** 2) for width in range(4, 65, 4))
    whole = {
        "backend": LITERT,
        "precision": precision,
        "quick": False,
        "overhead": figure(1.5, "latency.overhead"),
        "peak": figure(90.0, "compute.peak", "GFLOP/s"),
        "width_sweep": width_sweep,
        "operators": (
            OperatorKind(
                network="resnet-8",
                kind="Conv",
                count=9,
                time_us=figure(125.0, "latency.operators"),
                macs_per_s=figure(98e9, "compute.operators", "MAC/s"),
            ),
            OperatorKind(network="resnet-8", kind="Add", count=3, time_us=figure(6.0, "latency.operators")),
        ),
        "operators_detail": "depthwise: this backend doesn't tell them",
    }
    return DeploymentProfile(**{**whole, **changes})


def behaviour() -> BehaviourProfile:
    return BehaviourProfile(
        quick=False,
        backend=LITERT,
        probe="resnet-8",
        threads=(Threaded(threads=1, p5_us=figure(260.0)), Threaded(threads=2, p5_us=figure(140.0))),
        sustained=tuple(
            Sustained(
                at_s=0.5 * at,
                p5_us=260.0 if at < 40 else 390.0,
                temperature_c=40.0 + at // 10 if at % 10 == 0 else None,
            )
            for at in range(1, 61)
        ),
        busy=3,
        closed=figure(270.0, "latency.p50"),
        periodic=figure(410.0, "latency.p50"),
        rate_hz=30.0,
        noise=0.004,
        drift=0.01,
    )


def memory() -> MemoryProfile:
    rates = {256 << 10: 60e9, 128 << 20: 19e9}
    streams = tuple(
        Streamed(working_bytes=size, bandwidth=figure(rate, "memory.bandwidth", "B/s")) for size, rate in rates.items()
    )
    return MemoryProfile(quick=False, streams=streams)


@pytest.fixture
def report() -> Callable[..., ProfileReport]:
    """A whole one, with some parts changed."""

    def make(**changes) -> ProfileReport:
        whole = {
            "device": "board",
            "fingerprint": fake_fingerprint(),
            "folder": "/profiles/board-0123456789ab",
            "quick": False,
            "deployments": (
                deployment(),
                deployment(Precision.INT8, refused="an operator has no kernel of 8 bits here, in so many words"),
            ),
            "memory": memory(),
            "behaviour": behaviour(),
        }
        return ProfileReport(**{**whole, **changes})

    return make
