"""What a profile holds, section by section; each is a file of its own, so that a profile goes on where it ended.

::

    profiles/DEVICE-FINGERPRINT/
      deployment-litert-xnnpack-int8.json     DeploymentProfile: one backend and precision
      memory.json                      MemoryProfile: how fast bytes move
      deployment-litert-xnnpack-int8-4-threads.json
      behaviour-litert-xnnpack.json    BehaviourProfile: threads, heat, rhythm, noise
      again.json                       AgainRecord: while everything is measured anew
      report.html

A profile holds for its fingerprint: another governor, runtime version or set of limits is another folder.
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
    """A network that was timed."""

    name: str
    width: int  # channels of its first stage
    macs: int
    elements: int  # activations and weights moved
    p5_us: Figure


class OperatorKind(Record):
    """All operators of one kind in one network: ``kind`` is a word for what runtimes call differently."""

    network: str
    kind: str  # Conv, DepthwiseConv, FullyConnected, Pool, Add, ...
    count: int
    time_us: Figure  # of a call, all of them together
    macs_per_s: Figure | None = None  # None for what multiplies nothing, and where some were not told


class DeploymentProfile(Filed):
    """One backend and precision, with some number of threads."""

    schema_: Literal["edgekd.profile-deployment/1"] = Field(default="edgekd.profile-deployment/1", alias="schema")
    backend: Backend
    precision: Precision
    threads: int = 1
    quick: bool
    overhead: Figure | None = None  # of a call of a network that does next to nothing
    peak: Figure | None = None  # multiply-adds a second, twice: GFLOP/s, or GOP/s of integers
    stairs: tuple[Probed, ...] = ()  # one stage, ever wider
    table: tuple[Probed, ...] = ()  # networks of several families, for the predictor
    operators: tuple[OperatorKind, ...] = ()
    operators_detail: str = ""  # why there are none, network by network; empty where nobody asked
    missed: tuple[str, ...] = ()  # networks that could not be timed, and why
    not_kept: str = ""  # why none of it is in the device's latency table
    refused: str = ""  # why so little was told that nothing is concluded
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """What it is of, in words."""
        several = f", {self.threads} threads" if self.threads != 1 else ""
        return f"{self.backend} {self.precision.value}{several}"

    @property
    def timed(self) -> int:
        """How many networks: for overhead and peak, on the stairs and in the table, but for those that were missed."""
        two = 2 - sum(one.startswith(("overhead:", "peak:")) for one in self.missed)
        return two + len(self.stairs) + len(self.table)


class Streamed(Record):
    """Reading and writing in a working set of so many bytes."""

    working_bytes: int
    bandwidth: Figure


class MemoryProfile(Filed):
    """How fast the device's processor moves bytes, from the caches to memory."""

    schema_: Literal["edgekd.profile-memory/1"] = Field(default="edgekd.profile-memory/1", alias="schema")
    quick: bool
    streams: tuple[Streamed, ...]
    seconds: float = 0.0


class Threaded(Record):
    """The same network with so many threads."""

    threads: int
    p5_us: Figure


class Sustained(Record):
    """How a network's rounds went on under work without pause: seconds since it began, and the round's 5th percentile.

    Temperature and clock are told where a process of the measurement begins or ends, and by the machines that tell any.
    """

    at_s: float
    p5_us: float
    temperature_c: float | None = None
    clock_mhz: float | None = None


class BehaviourProfile(Filed):
    """What the device does to one network: ``probe`` on ``backend``, float32."""

    schema_: Literal["edgekd.profile-behaviour/1"] = Field(default="edgekd.profile-behaviour/1", alias="schema")
    quick: bool
    backend: Backend
    probe: str
    threads: tuple[Threaded, ...] = ()
    sustained: tuple[Sustained, ...] = ()
    busy: int = 0  # cores that other work kept busy in ``sustained``
    closed: Figure | None = None  # p50, back to back
    periodic: Figure | None = None  # p50, at ``rate_hz`` with sleep in between
    rate_hz: float = 0.0
    noise: float = 0.0  # between the same network and itself, relative
    drift: float = 0.0  # spread of the sentinel
    seconds: float = 0.0


class AgainRecord(Filed):
    """Sections that are new already, so that measuring all of them anew can be stopped and gone on with."""

    schema_: Literal["edgekd.profile-again/1"] = Field(default="edgekd.profile-again/1", alias="schema")
    begun_s: float  # since 1970
    done: tuple[str, ...] = ()


class ProfileReport(Shown):
    """All sections of a device as it is now."""

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
    left_out: tuple[str, ...] = ()  # for which a quick look had no time

    def lines(self) -> list[str]:
        """One screen of 80 columns."""
        from edgekd.profiling.text import profile_lines

        return profile_lines(self)
