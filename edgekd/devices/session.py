"""An open device: a conversation with the agent at the other end of a link, whichever link it is.

Every wait has an end. The agent says it is alive every few seconds, while a model runs and between short rounds, so
silence means that the agent itself is gone or stuck, not that a model is slow: models have their own deadlines, which
the agent keeps. One that only says it is alive is left when all of them would have passed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgekd.agent.messages import MAX_LINE_BYTES, PROTOCOL
from edgekd.artefacts import Artefact, Format
from edgekd.devices._protocol import (
    Fingerprint,
    Job,
    Measurement,
    MeasurePlan,
    Outcome,
    PowerModel,
    Progress,
    RunResult,
    SentinelReading,
)
from edgekd.devices.answers import Hello, JobAnswer, LoadAnswer, SampleAnswers, SentinelAnswer, checked, decode
from edgekd.devices.deadlines import load_s, measure_s, run_s
from edgekd.devices.link import Link
from edgekd.devices.outputs import open_output, samples_in
from edgekd.errors import ConfigurationError, DeviceBusy, DeviceUnreachable, MissingError, Problem, printable
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import asked_of_agent
from edgekd.records import Digest, Record, digest_file
from edgekd.temporary import prefix, sweep_temporary

__all__ = ["AgentSession"]

_Answer = TypeVar("_Answer", bound=Record)
_GREETING_S = 60.0
_SILENCE_S = 30.0  # the agent speaks at least every 5 s


class AgentSession:
    """A DeviceSession over a link. ``release`` is called once, when the session closes.

    ``cooling_s`` is the longest that the device may wait until it is cool; ``clock`` tells seconds.
    """

    def __init__(
        self,
        device: str,
        link: Link,
        release: Callable[[], None],
        silence_s: float = _SILENCE_S,
        power_model: PowerModel | None = None,
        *,
        cooling_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self._link = link
        self._release = release
        self._silence_s = silence_s
        self._power_model = power_model
        self._cooling_s = cooling_s
        self._clock = clock
        self._count = 0
        self._open = True
        self._fingerprint: Fingerprint | None = None
        self._placed: dict[tuple[str, str], str] = {}  # the same content may lie elsewhere later
        sweep_temporary()
        self._scratch = Path(tempfile.mkdtemp(prefix=prefix()))
        try:
            hello = self._ask("hello", Hello)
            if hello.protocol != PROTOCOL:
                raise DeviceUnreachable(
                    f"the agent on {device} speaks protocol {hello.protocol}, this edgekd speaks {PROTOCOL}",
                    "use the same version of edgekd on both sides",
                )
            if hello.unenforced:
                raise MissingError(
                    f"{device} can't be used as its file says: {hello.unenforced}",
                    "correct the device file, or run it as root where that allows more",
                )
            if hello.held_by:
                raise DeviceBusy(
                    f"the device {device} is in use by process {hello.held_by} on it",
                    "another computer measures there: wait until it is done, or stop it",
                )
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """False once it was closed, or broke."""
        return self._open

    def __enter__(self) -> AgentSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> Fingerprint:
        """See DeviceSession. Asked once a session."""
        if self._fingerprint is None:
            found = self._ask("describe", Fingerprint, runtimes=asked_of_agent())
            model = self._power_model
            meter = f"{model.busy_w:g} W busy, {model.idle_w:g} W idle, by the device file" if model else ""
            self._fingerprint = found.but(meter=meter, no_meter="", power_is_modelled=True) if meter else found
        return self._fingerprint

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """See DeviceSession. A job that is there twice is loaded once."""
        return {job: self._load(job) for job in dict.fromkeys(jobs)}

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """See DeviceSession. The batch is one: whatever becomes of a job, the others have their figures."""
        if not jobs:
            return ()
        described = self.describe()
        kind = EvidenceKind.EMULATED if described.limits else EvidenceKind.MEASURED
        answers: dict[int, JobAnswer] = {}
        steps = 0
        total = len(jobs) * (plan.processes * (1 + plan.energy) + plan.profile)

        def hear(message: dict[str, Any]) -> None:
            nonlocal steps
            if "job" in message:
                answer = checked(JobAnswer, message)
                if answer.job not in range(len(jobs)):
                    raise DeviceUnreachable(
                        f"{len(jobs)} jobs were asked for, the agent answered number {answer.job}", "run it again"
                    )
                answers[answer.job] = answer
            elif "step" in message:
                steps += 1
                if progress is not None:
                    progress(str(message["step"]), min(steps, total), total)

        requests = [self._job_request(job, plan.threads) for job in jobs]
        state = self._link.state()
        longest_s = measure_s(plan, len(jobs), sum(job.artefact.size_bytes for job in jobs), self._cooling_s)
        done = self._ask("measure", SentinelAnswer, longest_s, hear, jobs=requests, plan=_plan(plan))
        try:
            _complete(answers, done, len(jobs), plan)
        except DeviceUnreachable:
            self.close()
            raise
        return tuple(
            Measurement(
                sha256=job.artefact.sha256,
                backend=job.backend,
                fingerprint=described.digest(job.backend),
                kind=kind,
                plan=plan.but(threads=job.threads or plan.threads),
                shapes=job.shapes,
                state="; ".join(word for word in (state, answers[index].state) if word),
                outcome=answers[index].outcome,
                detail=answers[index].detail,
                processes=answers[index].processes,
                sentinel=_reading(done, answers[index]),
                operators=answers[index].operators,
                operators_detail=answers[index].operators_detail,
                delegation=answers[index].placement,
                meter=described.meter if plan.energy else "",
                energy=answers[index].energy,
                energy_detail=answers[index].energy_detail if self._power_model is None else "",
                power_model=self._power_model if plan.energy else None,
            )
            for index, job in enumerate(jobs)
        )

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:
        """See DeviceSession. The output files are gone once the session closes.

        Raises DeviceUnreachable where one of them is no .npy of numbers with a row a sample.
        """
        files = [{"path": self._link.put([path]), "sha256": digest_file(path)} for path in inputs]
        plan, samples = MeasurePlan(), samples_in(inputs[0]) if inputs else 0
        longest_s = run_s(plan, samples, job.artefact.size_bytes + sum(path.stat().st_size for path in inputs))
        request, folder = self._job_request(job, threads), self._link.folder()
        answer = self._ask("run", SampleAnswers, longest_s, job=request, inputs=files, folder=folder, plan=_plan(plan))
        place = Path(tempfile.mkdtemp(dir=self._scratch))
        outputs = []
        for index, output in enumerate(answer.outputs):
            path = place / f"output-{index}.npy"
            self._link.get(output.path, path)
            if digest_file(path) != output.sha256:
                raise DeviceUnreachable(f"{output.path} was damaged on its way from {self.device}", "run it again")
            open_output(path, samples)
            outputs.append(path)
        return RunResult(outcome=answer.outcome, detail=answer.detail, outputs=tuple(outputs))

    def close(self) -> None:
        """See DeviceSession."""
        if not self._open:
            return
        self._open = False
        self._link.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._release()

    def _load(self, job: Job) -> Problem | None:
        plan = MeasurePlan()
        longest_s = load_s(plan, job.artefact.size_bytes)
        answer = self._ask("load", LoadAnswer, longest_s, job=self._job_request(job, 1), plan=_plan(plan))
        if answer.outcome is Outcome.OK:
            return None
        return Problem(
            f"{job.artefact.path.name} can't be used by {job.backend}: {answer.outcome.value}: {answer.detail}",
            f"measure it on another backend, or export it again for {job.backend}",
        )

    def _job_request(self, job: Job, threads: int) -> dict[str, Any]:
        artefact = job.artefact
        key = (artefact.sha256, str(artefact.path))
        if key not in self._placed:
            self._placed[key] = self._link.put(artefact.files)
        path = self._placed[key]
        return {
            "runtime": job.backend.runtime,
            "provider": job.backend.provider,
            "path": path,
            "sha256": _known_there(artefact),
            "threads": job.threads or threads,
            "shapes": {name: list(axes) for name, axes in job.shapes},
        }

    def _ask(
        self,
        op: str,
        kind: type[_Answer],
        longest_s: float | None = None,
        hear: Callable[[dict[str, Any]], None] | None = None,
        **fields: Any,
    ) -> _Answer:
        """Send a request; ``hear`` gets what comes before its answer. Any failure closes the session for good."""
        longest_s = _GREETING_S if longest_s is None else longest_s
        if not self._open:
            raise DeviceUnreachable(f"the session with {self.device} is closed", "open the device again")
        self._count += 1
        end_s = self._clock() + longest_s
        try:
            self._link.send(json.dumps({**fields, "op": op, "id": self._count}).encode() + b"\n")
            while True:
                message = decode(self._link.receive(self._silence_s, MAX_LINE_BYTES))
                if "error" in message:
                    raise DeviceUnreachable(f"the agent can't {op}: {printable(str(message['error']))}", "run it again")
                if message.get("id") != self._count:
                    raise DeviceUnreachable(
                        f"the agent answers request {message.get('id')!r}, but {self._count} was asked", "run it again"
                    )
                if "done" in message:
                    return checked(kind, message["done"])
                if self._clock() > end_s:
                    raise DeviceUnreachable(
                        f"the agent says that it is alive and does not answer `{op}` in {longest_s:.0f} s",
                        "another version of edgekd, or something else, answers there",
                    )
                if hear is not None:
                    hear(message)
        except BaseException:
            self.close()
            raise


def _known_there(artefact: Artefact) -> Digest:
    """The digest that the agent checks: it knows the .bin of an .xml, and of weights with names of their own nothing.

    Of such a model the file that names it is checked there, and all of them here. Where one has changed since, the
    digest fits nothing, and the agent refuses the model as it does any other.
    """
    try:
        alone = artefact.format is not Format.ONNX or len(artefact.files) == 1
        if alone or Artefact.of(artefact.path).sha256 != artefact.sha256:
            return artefact.sha256
        return digest_file(artefact.path)
    except (ConfigurationError, OSError):  # one of them is gone
        return artefact.sha256


def _complete(answers: Mapping[int, JobAnswer], done: SentinelAnswer, jobs: int, plan: MeasurePlan) -> None:
    """Raises DeviceUnreachable where a job, a process or a reading is missing: a figure of fewer would look as sure."""
    if sorted(answers) != list(range(jobs)):
        raise DeviceUnreachable(f"{jobs} jobs were asked for, the agent answered {sorted(answers)}", "run it again")
    for answer in answers.values():
        whole = plan.processes if answer.outcome is Outcome.OK else 0
        beside = whole if plan.sentinel else 0
        energy = len(answer.energy) in (0, plan.processes if plan.energy else 0)
        if (len(answer.processes), len(answer.beside)) != (whole, beside) or not energy:
            raise DeviceUnreachable(
                f"the agent's answer makes no sense: {len(answer.processes)} processes of {plan.processes}, "
                f"{len(answer.beside)} beside the sentinel, {len(answer.energy)} with energy",
                "run it again",
            )
    if any(len(row) != plan.rounds for row in done.sentinel):
        raise DeviceUnreachable(
            f"the agent's answer makes no sense: rounds of the sentinel other than {plan.rounds}", "run it again"
        )


def _plan(plan: MeasurePlan) -> dict[str, Any]:
    """The plan in the agent's words: plain numbers, 0 for none."""
    periodic = plan.load.pattern == "periodic"
    return {
        **plan.model_dump(mode="json", exclude={"load", "threads"}),
        "busy": plan.load.busy,
        "rate_hz": (plan.load.rate_hz or 0.0) if periodic else 0.0,
        "memory_limit_bytes": plan.memory_limit_bytes or 0,
    }


def _reading(answer: SentinelAnswer, job: JobAnswer) -> SentinelReading | None:
    """Readings, one a round in order, of the sentinel's processes that ran beside this job's.

    Drift compares processes by the median of their rounds: a single round that another program disturbed is noise, a
    whole process that is slower is a machine that has changed.
    """
    if any(place not in range(len(answer.sentinel)) for place in job.beside):
        raise DeviceUnreachable(f"the agent's answer makes no sense: beside {job.beside}", "run it again")
    rows = [answer.sentinel[place] for place in job.beside] or answer.sentinel
    if not rows:
        return None
    middles = [statistics.median(rounds) for rounds in rows]
    drift = (max(middles) - min(middles)) / statistics.median(middles)
    return SentinelReading(p5_us=tuple(low for rounds in rows for low in rounds), drift=drift)
