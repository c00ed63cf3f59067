"""Records of a profile, one file a section, so that a profile continues where it ended.

::

    profiles/DEVICE-FINGERPRINT/
      deployment-litert-xnnpack-int8.json     DeploymentProfile: one backend and precision
      deployment-litert-xnnpack-int8-4-threads.json
      memory.json                      MemoryProfile: memory bandwidth
      behaviour-litert-xnnpack.json    BehaviourProfile: threads, heat, rhythm, noise
      again.json                       AgainRecord: while everything is measured anew
      report.html

A profile holds for its fingerprint: another governor, runtime version or set of limits is another folder. A section of
a runtime that another package brings has the digest of the device with that runtime in its name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.evidence import Figure
from edgekd.ir.numerics import Precision
from edgekd.records import Filed, Record, Shown

__all__ = [
    "AgainRecord",
    "BehaviourProfile",
    "DeploymentProfile",
    "MemoryProfile",
    "OperatorKind",
    "Probed",
    "ProfileReport",
    "Streamed",
    "Sustained",
    "Threaded",
]


class Probed(Record):
    """Probe network that was timed."""

    name: str
    width: int  # channels of its first stage
    macs: int
    elements: int  # activations and weights moved
    p5_us: Figure


class OperatorKind(Record):
    """All operators of one kind in one network: ``kind`` unifies the names of different runtimes."""

    network: str
    kind: str  # Conv, DepthwiseConv, FullyConnected, Pool, Add, ...
    count: int
    time_us: Figure  # of a call, all of them together
    macs_per_s: Figure | None = None  # None for kinds without multiplications, and where some were not reported


class DeploymentProfile(Filed):
    """Profile of one backend and precision, with some number of threads."""

    schema_: Literal["edgekd.profile-deployment/1"] = Field(default="edgekd.profile-deployment/1", alias="schema")
    backend: Backend
    precision: Precision
    threads: int = 1
    quick: bool
    overhead: Figure | None = None  # of a call of a minimal network
    peak: Figure | None = None  # multiply-adds a second, twice: GFLOP/s, or GOP/s of integers
    width_sweep: tuple[Probed, ...] = ()  # width sweep: one stage, ever wider
    table: tuple[Probed, ...] = ()  # networks of several families, for the predictor
    operators: tuple[OperatorKind, ...] = ()
    operators_detail: str = ""  # why there are none, network by network; empty where not requested
    missed: tuple[str, ...] = ()  # networks that could not be timed, and why
    not_kept: str = ""  # why nothing was added to the device's latency table
    refused: str = ""  # why too little was measured for any conclusion
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """Backend, precision and threads as text."""
        several = f", {self.threads} threads" if self.threads != 1 else ""
        return f"{self.backend} {self.precision.value}{several}"

    @property
    def timed(self) -> int:
        """Number of networks timed: overhead and peak, width sweep and table, without those that failed."""
        two = 2 - sum(one.startswith(("overhead:", "peak:")) for one in self.missed)
        return two + len(self.width_sweep) + len(self.table)


class Streamed(Record):
    """Bandwidth of reading and writing in a working set, in bytes."""

    working_bytes: int
    bandwidth: Figure


class MemoryProfile(Filed):
    """Memory bandwidth of the device's processor, from the caches to memory."""

    schema_: Literal["edgekd.profile-memory/1"] = Field(default="edgekd.profile-memory/1", alias="schema")
    quick: bool
    streams: tuple[Streamed, ...]
    seconds: float = 0.0


class Threaded(Record):
    """Latency of the same network with a number of threads."""

    threads: int
    p5_us: Figure


class Sustained(Record):
    """Round of a network under work without pause: seconds since the beginning, and the round's 5th percentile.

    Temperature and clock are given where a process of the measurement begins or ends, on machines that report them.
    """

    at_s: float
    p5_us: float
    temperature_c: float | None = None
    clock_mhz: float | None = None


class BehaviourProfile(Filed):
    """Behaviour of the device on one network: ``probe`` on ``backend``, float32."""

    schema_: Literal["edgekd.profile-behaviour/1"] = Field(default="edgekd.profile-behaviour/1", alias="schema")
    quick: bool
    backend: Backend
    probe: str
    threads: tuple[Threaded, ...] = ()
    sustained: tuple[Sustained, ...] = ()
    busy: int = 0  # cores kept busy by other work in ``sustained``
    closed: Figure | None = None  # p50, back to back
    periodic: Figure | None = None  # p50, at ``rate_hz`` with sleep in between
    rate_hz: float = 0.0
    noise: float = 0.0  # A/A noise, relative
    drift: float = 0.0  # spread of the sentinel
    seconds: float = 0.0


class AgainRecord(Filed):
    """Sections already measured anew, so that ``--again`` can be stopped and resumed."""

    schema_: Literal["edgekd.profile-again/1"] = Field(default="edgekd.profile-again/1", alias="schema")
    begun_s: float  # since 1970
    done: tuple[str, ...] = ()


class ProfileReport(Shown):
    """All sections of a device in its present state."""

    schema_: Literal["edgekd.profile/1"] = Field(default="edgekd.profile/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    folder: str
    quick: bool
    threads: int = 1  # of the deployments
    deployments: tuple[DeploymentProfile, ...]
    memory: MemoryProfile | None
    behaviour: BehaviourProfile | None
    reused: tuple[str, ...] = ()  # sections that were there already
    left_out: tuple[str, ...] = ()  # for which a quick profile had no time

    def lines(self) -> list[str]:
        """Format as one screen of 80 columns."""
        from edgekd.profiling.text import profile_lines

        return profile_lines(self)
