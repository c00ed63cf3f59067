"""A search on paper: a small space, scripted latencies and accuracies, and a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome
from edgekd.errors import Interrupted
from edgekd.evidence import AccuracyKind, Figure
from edgekd.export._protocol import ConversionOutcome, ConversionResult
from edgekd.ir.backends import formats_of
from edgekd.ir.features import StaticFeatures
from edgekd.ir.kernels import Kernel, Kernels
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch, Axis
from edgekd.records import digest_json
from edgekd.search._protocol import Estimate, EstimateContext, Refined, Step
from edgekd.search.search import Parts, Search
from edgekd.search.trials.files import place
from edgekd.search.trials.sampler import TpeSampler
from edgekd.store import atomic
from edgekd.store.records import Accuracy, Deployment, FinalistRecord, OutcomeRecord, PlanRecord, RunHeader
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.fakes.bars import BarTask
from edgekd.testing.fakes.clock import FakeClock
from edgekd.testing.fakes.device import FakeDevice, Script, TimingNoise, fake_fingerprint

AXES = (
    Axis(name="depth", choices=(1, 2, 3)),
    Axis(name="width", choices=(8, 16, 24, 32, 48, 64)),
    Axis(name="wide", choices=(1, 2, 3, 4)),
)
LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")
F32, INT8 = Precision.FLOAT32, Precision.INT8
DEPLOYMENTS = tuple(Deployment(backend=b, precision=p) for b in (LITERT, ORT) for p in (F32, INT8))
QUIET = TimingNoise(low=0.0, body=0.0, tail=0.0)


def macs(arch: Arch) -> int:
    return int(arch["depth"] * arch["width"] ** 2 * arch["wide"] * 100)


def accuracy(candidate: Candidate) -> float:
    """More work is more accurate, int8 costs a little; no two archs tie."""
    arch = candidate.arch
    gain = 0.1 * float(arch["depth"]) + 0.004 * float(arch["width"]) + 0.03 * float(arch["wide"])
    return round(0.2 + gain - (0.004 if candidate.plan.precision is INT8 else 0.0), 6)


def latency_us(candidate: Candidate) -> float:
    rate = {(LITERT, F32): 900, (LITERT, INT8): 1800, (ORT, F32): 600, (ORT, INT8): 500}
    assert candidate.backend is not None
    return 20.0 + macs(candidate.arch) / rate[candidate.backend, candidate.plan.precision]


def size_bytes(candidate: Candidate) -> int:
    return 2000 + macs(candidate.arch) // 100 * (1 if candidate.plan.precision is INT8 else 4)


class FakeAnalyser:
    def features(self, arch: Arch) -> StaticFeatures:
        parameters = macs(arch) // 100
        return StaticFeatures(
            parameters=parameters,
            macs=macs(arch),
            weight_bytes=4 * parameters,
            peak_activation_bytes=1000 * int(arch["width"]),
            bytes_moved=5 * parameters,
            depth=int(arch["depth"]),
        )

    def kernels(self, arch: Arch) -> Kernels:
        """As many convolutions as it is deep, of all its work together."""
        width, depth, share = int(arch["width"]), int(arch["depth"]), macs(arch) // int(arch["depth"])
        return (Kernel("conv", width, width, 8, 8, 9, 1, share, 64 * width, 64 * width, share // 64),) * depth


class Lab:
    """Everything a `Search` needs. Counts what was done, so that a test can see nothing done twice."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.candidates: dict[str, Candidate] = {}
        self.placed: dict[str, Path] = {}
        self.made: list[Candidate] = []
        self.estimated: list[Candidate] = []
        self.refined: list[Candidate] = []
        self.stage_by_stage: list[Candidate] = []
        self.lines: list[str] = []
        self.notes: list[tuple[str, str]] = []  # stage and note of every line of progress
        self.stop_after: int | None = None  # steps until the person asks to stop
        self.conversions: Callable[[Candidate], ConversionOutcome] = lambda _: ConversionOutcome.OK
        self.outcomes: Callable[[Candidate], Outcome] = lambda _: Outcome.OK
        self.refined_latency: Mapping[int, float] = {}
        self.slow_when: Callable[[Candidate, MeasurePlan | None], float] = lambda *_: 1.0
        self.float_operators: Callable[[Candidate], tuple[str, ...] | None] = lambda _: None
        self.task: Any = BarTask()
        self.family: Any = None
        self.bandwidth: Callable[[int], Figure] | None = None
        self.train_s, self.refine_s = 2.0, 20.0
        self.keeps_best, self.refine_took = False, list[float]()
        self.files_alike = False  # as real ones are: whether a candidate is to be trained does not change its file
        self.noise: TimingNoise = QUIET
        self.sampler: Any = TpeSampler()
        self.recipe: tuple[Any, ...] = ()
        self.target = Target.model_validate(
            {
                "name": "paper",
                "device": "fake-device",
                "backends": ["litert/xnnpack", "onnxruntime/cpu"],
                "budgets": {"latency": {"p95": "120 us"}, "size": {"file": "40 KiB"}},
                **changes.pop("target", {}),
            }
        )
        self.seed: int = changes.pop("seed", 7)
        self.budget_s: float | None = changes.pop("budget_s", None)
        self.plan = PlanRecord(
            **{
                "axes": AXES,
                "deployments": DEPLOYMENTS,
                "reference_archs": 4,
                "sampler": "tpe",
                "batch": 4,
                "trials": 24,
                "finalists": 3,
                "measure": MeasurePlan(processes=3, rounds=2),
                "certify": MeasurePlan(processes=5, rounds=2),
                "refine_images": 10_000,
                **changes,
            }
        )

    # the seams

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.notes.append((stage, note))

    def budget(self, seconds: float, spent: float) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)

    def stop(self) -> bool:
        if self.stop_after is None:
            return False
        self.stop_after -= 1
        return self.stop_after < 0

    name = "paper"
    kind = AccuracyKind.TORCH

    def make(self, candidate: Candidate, path: Path) -> ConversionResult:
        self.made.append(candidate)
        self.clock.advance(1.0)
        outcome = self.conversions(candidate)
        if outcome is not ConversionOutcome.OK:
            return ConversionResult(outcome=outcome, detail=f"scripted {outcome.value}", seconds=1.0)
        left = self.float_operators(candidate)
        artefact = self.artefact(candidate, path)
        return ConversionResult(outcome=outcome, artefact=artefact, seconds=1.0, float_operators=left)

    def artefact(self, candidate: Candidate, path: Path, salt: str = "") -> Artefact:
        named = candidate.but(plan=candidate.plan.but(untouched=False)) if self.files_alike else candidate
        sha = digest_json([named.model_dump(mode="json"), salt])
        self.candidates[sha] = candidate
        assert candidate.backend is not None
        form: Format = formats_of(candidate.backend)[0]
        path = path.with_suffix(form.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sha)
        return Artefact(path=path, format=form, sha256=sha, size_bytes=size_bytes(candidate))

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        self.estimated.append(candidate)
        self.clock.advance(self.train_s)
        return Estimate(self._accuracy(candidate, -0.05, AccuracyKind.TORCH), images_per_s=1000.0)

    def refine(self, candidate: Candidate, late: Callable[[], bool] = lambda: False) -> Refined:
        self.refined.append(candidate)
        spent = 0.0
        while spent < self.refine_s and not (self.keeps_best and late()):
            self.clock.advance(1.0)
            spent += 1.0
        self.refine_took.append(spent)
        artefact = place(self.artefact(candidate, self.folder / "scratch/final", "refined"), self.folder / "artefacts")
        artefact = artefact.but(path=artefact.path.relative_to(self.folder))
        final = self._accuracy(candidate, 0.0, AccuracyKind.ARTEFACT)
        left = self.float_operators(candidate)
        return Refined(digest_json(str(candidate)), artefact, final, final, float_operators=left)

    def steps(self, finalist: FinalistRecord) -> tuple[Step, ...]:
        self.stage_by_stage.append(finalist.candidate)
        if finalist.artefact is None or finalist.student is None:
            return ()
        last = Step("distill", finalist.student, F32, finalist.artefact, finalist.accuracy)
        return (Step("inherited", digest_json("before"), F32, None, None, "its student is no longer kept"), last)

    def twin(self, candidate: Candidate) -> Artefact | None:
        if candidate.plan.precision is F32:
            return None
        plain = candidate.but(plan=candidate.plan.but(precision=F32))
        return place(self.artefact(plain, self.folder / "scratch/twin", "twin"), self.folder / "artefacts")

    def _accuracy(self, candidate: Candidate, lost: float, kind: AccuracyKind) -> Accuracy:
        value = accuracy(candidate) + lost
        return Accuracy(value=value, kind=kind, split="validation", samples=1000, method="on paper")

    def latency(self, job: Job) -> float:
        candidate = self.candidates[job.artefact.sha256]
        return latency_us(candidate) * self.slow_when(candidate, self.measuring)

    measuring: MeasurePlan | None = None
    joules: Callable[[Candidate], float | None] = staticmethod(lambda _: None)

    def device(self) -> FakeDevice:
        def script(job: Job) -> Script:
            candidate = self.candidates[job.artefact.sha256]
            outcome = self.outcomes(candidate)
            detail = "" if outcome is Outcome.OK else f"scripted {outcome.value}"
            return Script(outcome=outcome, detail=detail, joules=self.joules(candidate))

        return FakeDevice(self.latency, noise=self.noise, outcomes=script, clock=self.clock)

    # running

    def header(self) -> RunHeader:
        spec = TaskSpec(
            name="paper", input=InputSpec(shape=(1, 8, 8)), head=HeadSpec(classes=10), data=digest_json("paper")
        )
        return RunHeader(
            id="paper",
            command="search",
            created="2026-01-01T00:00:00+00:00",
            project={},
            project_file="project.yaml",
            target=self.target,
            task=spec,
            teacher="none",
            teacher_digest=digest_json(None),
            family="resnet",
            fingerprint=fake_fingerprint(),
            versions={},
            seed=self.seed,
            budget_s=self.budget_s,
        )

    def open(self) -> Run:
        if (self.folder / "run.json").exists():
            return Run.open(self.folder)
        run = Run.create(self.folder, self.header())
        run.write(self.plan)
        return run

    def search(self) -> OutcomeRecord:
        run = self.open()
        plan = run.plan()
        assert plan is not None
        session = self.device().open()
        context = EstimateContext(
            task=self.task,
            teacher=None,
            family=self.family,
            recipe=self.recipe,
            fingerprint=None,
            students=run.students,
            stages=run.stages,
            cache=run.scratch,
            seed=0,
            progress=lambda _: None,
            stop=self.stop,
        )
        parts = Parts(
            analyser=FakeAnalyser(),
            builder=self,
            sampler=self.sampler,
            estimate=self,
            context=context,
            trainer=self,
            session=_Watched(session, self),
            bandwidth=self.bandwidth,
        )
        with run.writing():
            return Search(run, plan, parts, self, self.clock)()

    def search_through_stops(self, every: int) -> OutcomeRecord:
        """Search, asked to stop after ``every`` more steps again and again, until done."""
        while True:
            self.stop_after = every
            try:
                return self.search()
            except Interrupted:
                every += 1  # so that even a step with many checks gets done


class _Watched:
    """The session, recording in the lab under which plan it measures."""

    def __init__(self, session: Any, lab: Lab) -> None:
        self._session, self._lab = session, lab

    def measure(self, jobs: Any, plan: MeasurePlan, progress: Any = None) -> Any:
        self._lab.measuring = plan
        for job in jobs:  # a session may remember where it found a digest
            found_at = self._lab.placed.setdefault(job.artefact.sha256, job.artefact.path)
            assert found_at.is_file(), f"{job.artefact.path} was first found at {found_at}, which is gone"
        return self._session.measure(jobs, plan, progress)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches here write thousands of files; that they last is the store's own test."""
    monkeypatch.setattr(atomic.os, "fsync", lambda _: None)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "run")


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Lab]:
    count = iter(range(1000))
    return lambda **changes: Lab(tmp_path / f"run{next(count)}", **changes)
