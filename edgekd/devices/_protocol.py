"""The interface of a device: it describes itself, loads artefacts, and measures them.

A `Device` is how to reach hardware and costs nothing to construct. `open` takes the exclusive lock and starts the
agent there; the `DeviceSession` it returns does the work and can be closed after any failure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from edgekd.artefacts import Artefact, Backend
from edgekd.errors import Problem
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import SHIPPED
from edgekd.records import Digest, Extended, Record, digest_json

__all__ = [
    "METER_FIELDS",
    "Conditions",
    "Delegation",
    "Describes",
    "Device",
    "DeviceSession",
    "EnergySample",
    "Fingerprint",
    "Job",
    "Load",
    "MeasurePlan",
    "Measurement",
    "OperatorTime",
    "Outcome",
    "PowerModel",
    "ProcessSample",
    "Progress",
    "RunResult",
    "Sampled",
    "SentinelReading",
    "Shapes",
    "Simulated",
]


_SAME_MEMORY = 0.01

NO_PYTHON = "none"
"""What stands for a Python's version where none is."""


METER_FIELDS = ("meter", "no_meter", "power_is_modelled")
"""Fields of a fingerprint that are no part of its identity."""


class Fingerprint(Extended):
    """The identity of a device as far as it changes a figure. Its digest for a backend is a measurement's subject."""

    added: ClassVar[frozenset[str]] = frozenset(
        {"limits", "on_cores", "cooling", "meter", "no_meter", "power_is_modelled", "simulator"}
    )
    cpu: str
    architecture: str  # as platform.machine() says
    cores: PositiveInt
    extensions: tuple[
        str, ...
    ]  # instruction sets that change results or speed: avx2, avx512_vnni, amx_int8, asimddp, ...
    memory_bytes: NonNegativeInt  # 0 where it isn't told
    governor: str | None
    os: str
    python: str
    runtimes: Mapping[str, str]  # runtime -> version, those that can be imported there
    providers: Mapping[str, tuple[str, ...]]  # runtime -> providers or delegates it offers
    limits: str = ""  # artificial ones, and what enforces them; with any, nothing is `measured` there, but `emulated`
    on_cores: str = ""  # which of them, where the device file says so: `4,5,6,7 (fast)`
    cooling: str = ""  # what it waits for before each set of processes: `below 45 C`
    meter: str = ""  # what tells its power; no part of the identity, for it changes no other figure
    no_meter: str = ""  # why nothing does
    power_is_modelled: bool = False  # nothing is read: ``meter`` is what a person wrote
    simulator: str = ""  # compiler and version whose estimates stand for measurements: nothing runs there

    def identity(self, *backends: Backend) -> dict[str, Any]:
        """Fields that change a figure measured on one of ``backends``, as JSON.

        Of runtimes and providers those that edgekd ships count, and those of ``backends``: a runtime that another
        package brings changes no figure of the others, whether it is installed or not. All that a simulator names
        count: they are its compiler's own.
        """
        written: dict[str, Any] = self.model_dump(mode="json", exclude=set(METER_FIELDS))
        if not self.simulates:
            counted = {*SHIPPED, *map(str, backends)}
            named = {name.partition("/")[0] for name in counted}
            written["runtimes"] = {name: version for name, version in self.runtimes.items() if name in named}
            written["providers"] = {
                name: [provider for provider in offered if f"{name}/{provider}" in counted]
                for name, offered in self.providers.items()
                if name in named
            }
        return written

    def digest(self, *backends: Backend) -> Digest:
        """SHA-256 of the `identity`: by it certificates and latency tables are held against a device."""
        return digest_json(self.identity(*backends))

    def changed(self, other: Fingerprint, *backends: Backend) -> list[str]:
        """Names of the fields of the `identity` in which the other differs.

        Memory that differs by less than a hundredth is the same: what a kernel keeps for itself differs by the boot.
        """
        here, there = self.identity(*backends), other.identity(*backends)
        if abs(self.memory_bytes - other.memory_bytes) < _SAME_MEMORY * self.memory_bytes:
            there["memory_bytes"] = here["memory_bytes"]
        return [name for name in {**here, **there} if here.get(name) != there.get(name)]

    @property
    def times_only(self) -> bool:
        """True where it is measured without a Python there: it tells no answers, no memory and no energy."""
        return self.python == NO_PYTHON and not self.simulates

    @property
    def simulates(self) -> bool:
        """True where its figures are a compiler's estimates: it ranks candidates and can't certify one."""
        return bool(self.simulator)

    @property
    def saturates_int8(self) -> bool:
        """True where u8 x s8 products saturate silently in int16 (x86 without a 8-bit dot product)."""
        dot = {"avx_vnni", "avx512_vnni", "amx_int8"}
        return self.architecture in ("x86_64", "AMD64") and not dot & set(self.extensions)


class Load(Record):
    """Arrival of calls, back to back or at a fixed rate, and the number of cores that other work keeps busy."""

    pattern: Literal["closed", "periodic"] = "closed"
    rate_hz: PositiveFloat | None = None  # periodic only
    busy: Annotated[int, Field(ge=0, le=4096)] = 0

    def __str__(self) -> str:
        calls = "closed loop" if self.pattern == "closed" else f"{self.rate_hz:g} calls/s"
        return calls + (f", {self.busy} core{'s' * (self.busy > 1)} busy" if self.busy else "")


_Milliseconds = Annotated[float, Field(ge=0, le=60_000)]
_Seconds = Annotated[float, Field(gt=0, le=3600)]


class MeasurePlan(Record):
    """Plan of a batch's measurement. Every process is spawned fresh; processes of all jobs are interleaved.

    Every field is bounded, for a plan is read back from certificates and reports of others.
    """

    processes: Annotated[int, Field(ge=1, le=10_000)] = 5
    rounds: Annotated[int, Field(ge=1, le=1000)] = 10  # per process, after warm-up
    round_ms: _Milliseconds = 25.0  # time a round takes; at least `min_calls` calls
    min_calls: Annotated[int, Field(ge=1, le=1000)] = 5
    warmup_ms: _Milliseconds = 60.0  # at least; until the running median settles, at most ten times as long
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    load: Load = Load()
    sentinel: bool = True
    profile: bool = False  # also time operators, in a process of its own
    energy: bool = False  # also the energy of a call, in as many processes of their own
    energy_window_s: Annotated[float, Field(ge=0, le=600)] = 2.0  # with work and without; longer by a slow meter
    load_deadline_s: _Seconds = 60.0
    call_deadline_s: _Seconds = 30.0
    memory_limit_bytes: PositiveInt | None = None  # what a process may take beyond its runtime's import
    seed: Annotated[int, Field(ge=-(2**62), le=2**62)] = 0  # order of processes and content of inputs

    @property
    def nominal_s(self) -> float:
        """Expected time of a model's processes and of the sentinel's beside them, in seconds, where calls are short.

        The sentinel is called back to back under any load.
        """
        calls_s = self.min_calls / self.load.rate_hz if self.load.rate_hz else 0.0
        warmup_s, round_s = 10 * self.warmup_ms * 1e-3, self.round_ms * 1e-3
        timed_s = warmup_s + self.rounds * max(round_s, calls_s)
        sentinel_s = self.sentinel * (warmup_s + self.rounds * round_s)
        energy_s = 2 * self.energy_window_s if self.energy else 0.0
        return self.processes * (timed_s + sentinel_s + energy_s)


Shapes = tuple[tuple[str, tuple[PositiveInt, ...]], ...]
"""Of inputs with free axes, by name; under no name that of an only input."""


class Job(Record):
    """An artefact on a backend: a row of a batch. Two identical jobs in one batch are an A/A pair.

    Without a shape that is asked for, a free batch is 1, and a model whose other axes are free is refused.
    """

    artefact: Artefact
    backend: Backend
    threads: PositiveInt | None = None  # None: the plan's
    shapes: Shapes = ()


class Outcome(str, Enum):
    """Result of a job. Only OK has figures; the others are results too, and never end a batch."""

    OK = "ok"
    REFUSED = "refused"  # the runtime won't load it, and says so
    CRASHED = "crashed"  # the process died
    HUNG = "hung"  # past its deadline, killed
    OUT_OF_MEMORY = "out-of-memory"


class Conditions(Record):
    """The device at one moment, seen by a measured process. None is what the machine doesn't tell."""

    temperature_c: float | None = None  # of the processor's hottest zone
    clock_mhz: float | None = None  # of the core it ran on
    swapped_pages: int | None = None  # in and out by the whole device, since it started
    throttle_count: int | None = None  # of an x86's cores for their heat, since it started
    throttle_flags: int | None = None  # a Raspberry Pi's firmware's bits


class ProcessSample(Record):
    """Times and memory of one fresh process. A process is one sample: its calls are not independent of each other."""

    p5_us: PositiveFloat  # the 5th percentile, the quantile used in ranking
    min_us: PositiveFloat
    p50_us: PositiveFloat
    p95_us: PositiveFloat
    p99_us: PositiveFloat | None  # None by a program that does not tell it
    mean_us: PositiveFloat
    round_p5_us: tuple[PositiveFloat, ...]  # one a round, in order: shows drift inside the process
    calls: PositiveInt
    first_us: NonNegativeFloat | None  # the first inference; None where it is told too coarsely
    load_ms: NonNegativeFloat
    runtime_us: float | None  # the runtime's own clock, where it has one: 5th percentile
    runtime_p50_us: float | None = None  # the same clock's median
    missed: NonNegativeInt = 0  # periodic load: calls that began late by more than a period
    memory_model_bytes: int | None  # peak resident above the runtime alone; None where the device doesn't tell
    memory_process_bytes: int | None  # peak resident of the whole process
    started_at_s: float  # on the device's monotonic clock, to draw drift
    before: Conditions | None = None  # warmed up; None where the machine tells nothing
    after: Conditions | None = None  # right after the last round
    load_average: float | None = None  # of the whole machine, over one minute, when the agent started
    machine_cores: PositiveInt | None = None  # all it has, whichever of them the work is bound to

    @model_validator(mode="before")
    @classmethod
    def _as_written_earlier(cls, data: Any) -> Any:
        """Older records have room for an arena, which no runtime ever told."""
        if isinstance(data, Mapping):
            return {name: value for name, value in data.items() if name != "memory_arena_bytes"}
        return data


class OperatorTime(Record):
    """Time in one operator, as the runtime's own profiler tells."""

    name: str
    kind: str  # the runtime's word: CONV_2D, Conv, jit_avx2_I8, ...
    time_us: float
    precision: str = ""


class Delegation(Record):
    """Placement of operators: all, those that a delegate took, its partitions, and the kinds that it left."""

    total: int
    delegated: int
    partitions: int
    left_out: tuple[str, ...] = ()  # kinds of operators that stayed behind


class EnergySample(Record):
    """Energy and power of one fresh process, by the device's meter."""

    joules: float  # a call's, the loaded but waiting process' subtracted
    busy_w: PositiveFloat
    idle_w: PositiveFloat
    calls: PositiveInt
    window_s: NonNegativeFloat  # that the calls took: longer than asked for where one call is
    readings: NonNegativeInt  # of the meter, in the window that had fewer
    unsure_w: NonNegativeFloat = 0.0  # by which either power can be off for the meter's own steps


class PowerModel(Record):
    """Power of a device as a person states it; energy taken from it is `modelled`."""

    busy_w: float
    idle_w: float


class SentinelReading(Record):
    """A fixed model timed with every batch. ``drift`` is the relative spread of its processes' levels."""

    p5_us: tuple[float, ...]
    drift: float


class Sampled(Record):
    """A measurement's evidence where the model ran: one sample a fresh process."""

    processes: Annotated[tuple[ProcessSample, ...], Field(min_length=1)]


class Simulated(Record):
    """A measurement's evidence where a compiler estimated one call by its model of the hardware. Nothing ran.

    Either ``cycles`` at ``clock_mhz``, or ``seconds``. It has no spread: every quantile of the latency is the estimate.
    Its operators are the measurement's own ``operators``.
    """

    compiler: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    cycles: PositiveInt | None = None
    clock_mhz: PositiveFloat | None = None
    seconds: PositiveFloat | None = None
    memory_bytes: NonNegativeInt | None = None  # that the compiler planned for activations; None where it doesn't tell

    @model_validator(mode="after")
    def _one_time(self) -> Simulated:
        if (self.cycles is None) != (self.clock_mhz is None) or (self.cycles is None) == (self.seconds is None):
            raise ValueError("expected `cycles` with `clock_mhz`, or `seconds`")
        return self

    @property
    def latency_us(self) -> float:
        """The estimate of one call."""
        if self.cycles is not None and self.clock_mhz is not None:
            return self.cycles / self.clock_mhz
        assert self.seconds is not None
        return 1e6 * self.seconds

    def __str__(self) -> str:
        return f"{self.compiler} {self.version}"


class Measurement(Extended):
    """A job's result, with everything needed to recompute its figures.

    Its evidence is a union: ``processes`` that ran, or a ``simulated`` estimate (`taken`).
    """

    added: ClassVar[frozenset[str]] = frozenset({"simulated"})

    sha256: Digest  # of the artefact
    backend: Backend
    fingerprint: Digest  # of the device, for this backend
    kind: EvidenceKind  # measured, emulated under artificial limits, or simulated
    plan: MeasurePlan
    shapes: Shapes = ()  # asked for
    resolution_us: NonNegativeFloat = 0.0  # of the times, where a program rounds them
    state: str = ""  # what a phone said of itself before: screen on, charging, ...; why a device did not cool down
    outcome: Outcome
    detail: str = ""  # what the runtime said; empty when all went well
    processes: tuple[ProcessSample, ...] = ()
    disturbed: int = 0  # further processes, left out because the sentinel was slow in them too
    sentinel: SentinelReading | None = None
    operators: tuple[OperatorTime, ...] = ()
    operators_detail: str = ""  # why there are none although the plan asked for them
    delegation: Delegation | None = None
    meter: str = ""
    energy: tuple[EnergySample, ...] = ()
    energy_detail: str = ""  # why there is none although the plan asked for it
    power_model: PowerModel | None = None
    simulated: Simulated | None = None  # in the place of processes

    @model_validator(mode="after")
    def _one_evidence(self) -> Measurement:
        if self.simulated is not None and (self.processes or self.kind is not EvidenceKind.SIMULATED):
            raise ValueError("a simulated estimate is of kind `simulated`, and has no processes")
        if self.processes and self.kind is EvidenceKind.SIMULATED:
            raise ValueError("processes that ran are never of kind `simulated`")
        return self

    @property
    def taken(self) -> Sampled | Simulated | None:
        """The evidence of its figures; None where there are none."""
        if self.outcome is not Outcome.OK:
            return None
        return self.simulated or (Sampled(processes=self.processes) if self.processes else None)

    @property
    def memory_bytes(self) -> float | None:
        """Memory that the model adds: the median of the processes, or the estimate; None where nothing tells it."""
        if self.simulated is not None:
            return self.simulated.memory_bytes
        reported = [process.memory_model_bytes for process in self.processes if process.memory_model_bytes is not None]
        return statistics.median(reported) if reported else None

    @property
    def is_timed(self) -> bool:
        """True where it has a latency."""
        return self.outcome is Outcome.OK and bool(self.processes or self.simulated)


class RunResult(Record):
    """Answers of an artefact to given inputs. Files are .npy, one per output, in output order."""

    outcome: Outcome
    detail: str = ""
    outputs: tuple[Path, ...] = ()


Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps finished, steps in all."""


class DeviceSession(Protocol):
    """An open device. Holds its lock until closed."""

    def describe(self) -> Fingerprint:
        """The device's fingerprint. Raises DeviceUnreachable."""
        ...

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """Bring artefacts over and load each once: None where all is well, else why it won't load."""
        ...

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """Measure all jobs in one interleaved batch; one result a job, in their order."""
        ...

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:
        """Answer inputs (.npy, one a model input, first axis = samples) on the device."""
        ...

    def close(self) -> None:
        """Release the lock and stop the agent. Never raises."""
        ...


@runtime_checkable
class Describes(Protocol):
    """A device that can be asked what it is without its lock, and so while it is in use. Nothing is measured."""

    def describe(self) -> Fingerprint:
        """Its fingerprint. Raises DeviceUnreachable."""
        ...


class Device(Protocol):
    """Access to hardware. Constructing one touches nothing."""

    @property
    def name(self) -> str:
        """The device's name, as a person writes it."""
        ...

    def open(self) -> DeviceSession:
        """Take the lock and start the agent. Raises DeviceUnreachable and DeviceBusy."""
        ...
