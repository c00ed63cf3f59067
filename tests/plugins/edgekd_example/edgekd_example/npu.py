"""`toy-npu`: an accelerator without hardware. Its compiler's model of it estimates cycles; nothing runs there.

An array of 16 x 16 multipliers beside a memory of 8 bytes a cycle; a kernel takes as long as the slower of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import PositiveFloat

from edgekd.artefacts import Artefact, Format
from edgekd.devices._protocol import (
    NO_PYTHON,
    Fingerprint,
    Job,
    Measurement,
    MeasurePlan,
    OperatorTime,
    Outcome,
    Progress,
    RunResult,
    Simulated,
)
from edgekd.devices.lock import DeviceLock
from edgekd.errors import ConfigurationError, DeviceUnreachable, MissingError, Problem
from edgekd.evidence import EvidenceKind
from edgekd.export.kernels.read import kernels_of_file
from edgekd.ir.backends import BackendSpec, RuntimeSpec
from edgekd.ir.kernels import Kernel
from edgekd.ir.numerics import Precision
from edgekd.records import Record

TOY = BackendSpec(
    runtime=RuntimeSpec(name="toy_npu"),
    provider="array",
    formats=(Format.ONNX, Format.TFLITE),
    precisions=(Precision.INT8,),
    can=frozenset({"simulate"}),
)
_COMPILER, _VERSION = "toy-npu", "1.0"
_MULTIPLIERS, _BYTES_A_CYCLE, _STARTUP = 256, 8, 120


class ToyNpu(Record):
    """``clock_mhz`` is what the cycles are divided by."""

    name: str
    clock_mhz: PositiveFloat = 500.0

    def open(self) -> ToySession:
        """Take the lock. Raises DeviceBusy."""
        return ToySession(self, DeviceLock(self.name))


class ToySession:
    """A DeviceSession that estimates."""

    def __init__(self, device: ToyNpu, lock: DeviceLock) -> None:
        self.device, self.lock, self.is_open = device, lock, True

    def describe(self) -> Fingerprint:
        """See DeviceSession. The compiler is a part of the identity: another version estimates otherwise."""
        return Fingerprint(
            cpu=f"toy NPU, {_MULTIPLIERS} multipliers at {self.device.clock_mhz:g} MHz",
            architecture="toy-npu",
            cores=1,
            extensions=(),
            memory_bytes=0,
            governor=None,
            os="none",
            python=NO_PYTHON,
            runtimes={TOY.runtime.name: _VERSION},
            providers={TOY.runtime.name: (TOY.provider,)},
            simulator=f"{_COMPILER} {_VERSION}",
        )

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """See DeviceSession."""
        found = zip(jobs, self.measure(jobs, MeasurePlan()), strict=True)
        return {job: Problem(one.detail) if one.outcome is not Outcome.OK else None for job, one in found}

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """See DeviceSession. The plan's processes and rounds have no meaning here: an estimate is always the same."""
        if not self.is_open:
            raise DeviceUnreachable(f"the session with {self.device.name} is closed", "open the device again")
        found = []
        for done, job in enumerate(jobs, start=1):
            found.append(self._estimate(job, plan))
            if progress is not None:
                progress("estimated", done, len(jobs))
        return found

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:
        """See DeviceSession: nothing runs. Raises MissingError."""
        raise MissingError(f"{self.device.name} estimates, and answers nothing", "run the file on another device")

    def close(self) -> None:
        """See DeviceSession."""
        if self.is_open:
            self.is_open = False
            self.lock.release()

    def _estimate(self, job: Job, plan: MeasurePlan) -> Measurement:
        result = Measurement(
            sha256=job.artefact.sha256,
            backend=job.backend,
            fingerprint=self.describe().digest(job.backend),
            kind=EvidenceKind.SIMULATED,
            plan=plan,
            shapes=job.shapes,
            outcome=Outcome.REFUSED,
        )
        try:
            estimate, operators = self._compiled(job.artefact)
        except ConfigurationError as error:
            return result.but(detail=error.message)
        return result.but(outcome=Outcome.OK, simulated=estimate, operators=operators if plan.profile else ())

    def _compiled(self, artefact: Artefact) -> tuple[Simulated, tuple[OperatorTime, ...]]:
        """The whole, and each kernel of the file. Raises ConfigurationError on a file without kernels to be read."""
        kernels = kernels_of_file(artefact)
        cycles = [_cycles(kernel) for kernel in kernels]
        operators = [
            OperatorTime(name=f"{number}", kind=kernel.kind, time_us=cost / self.device.clock_mhz, precision="int8")
            for number, (kernel, cost) in enumerate(zip(kernels, cycles, strict=True))
        ]
        estimate = Simulated(
            compiler=_COMPILER,
            version=_VERSION,
            cycles=sum(cycles),
            clock_mhz=self.device.clock_mhz,
            memory_bytes=max((kernel.reads + kernel.writes for kernel in kernels), default=0),
        )
        return estimate, tuple(operators)


def _cycles(kernel: Kernel) -> int:
    """A byte each for activations and weights."""
    moved = kernel.reads + kernel.writes + kernel.weights
    return _STARTUP + max(math.ceil(kernel.macs / _MULTIPLIERS), math.ceil(moved / _BYTES_A_CYCLE))
