"""A run folder written record by record, as far as a test needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, OperatorTime
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.ir.backends import formats_of
from edgekd.ir.features import StaticFeatures
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.measure.figures import figure_of, figures_of
from edgekd.records import digest_json
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, Certificate, Parity
from edgekd.store.records import (
    Accuracy,
    CurvePoint,
    Deployment,
    DeploymentObservation,
    DeploymentsRecord,
    DroppedDeployment,
    FilterReport,
    FiltersRecord,
    FinalistRecord,
    NeverSlower,
    OutcomeRecord,
    RunHeader,
    StageObservation,
    StagesRecord,
    TrialRecord,
)
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.targets.verdict import judge
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.fakes.device import FakeDevice, Script, fake_fingerprint

LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")
FLOAT, INT8 = (
    Deployment(backend=LITERT, precision=Precision.FLOAT32),
    Deployment(backend=LITERT, precision=Precision.INT8),
)
OTHER = Deployment(backend=ORT, precision=Precision.INT8)
PLAN = MeasurePlan(processes=5, rounds=2, profile=True)
FEATURES = StaticFeatures(parameters=10, macs=100, weight_bytes=40, peak_activation_bytes=64, bytes_moved=200, depth=3)
OPERATORS = (
    OperatorTime(kind="CONV_2D", name="a", time_us=30.0),
    OperatorTime(kind="CONV_2D", name="b", time_us=10.0),
    OperatorTime(kind="FULLY_CONNECTED", name="c", time_us=10.0),
)


class Written:
    """Writes one run. ``name`` goes wherever a stranger's name can stand."""

    def __init__(self, folder: Path, name: str = "resnet", budgets: dict[str, object] | None = None) -> None:
        self.name = name
        plain = {"latency": {"p95": "200 us"}, "size": {"file": "1 KiB"}, "memory": {"model": "1 MiB", "report": True}}
        self.target = Target.model_validate(
            {
                "name": name,
                "device": "fake-device",
                "backends": ["litert/xnnpack", "onnxruntime/cpu"],
                "budgets": plain if budgets is None else budgets,
                "accuracy": {"floor": 0.9},
            }
        )
        self.session = FakeDevice(lambda job: 100.0, outcomes=lambda job: Script(operators=OPERATORS)).open()
        self.header = RunHeader(
            id="paper",
            command="search",
            created="2026-01-01T00:00:00+00:00",
            project={},
            project_file=f"{name}/project.yaml",
            target=self.target,
            task=TaskSpec(name=name, input=InputSpec(shape=(1, 8, 8)), head=HeadSpec(classes=2), data=digest_json("d")),
            teacher=name,
            teacher_digest=digest_json(None),
            family=name,
            fingerprint=fake_fingerprint(),
            versions={"edgekd": "0.1.0"},
            seed=7,
            budget_s=60.0,
        )
        self.run = Run.create(folder, self.header)

    def candidate(self, deployment: Deployment = INT8, width: int = 8) -> Candidate:
        plan = CompressionPlan(precision=deployment.precision)
        return Candidate(family=self.name, arch=Arch.of({"width": width}), plan=plan, backend=deployment.backend)

    def filters(self) -> None:
        filter_ = FilterReport(name="size.file", asks="weights alone <= 1 KiB", kind=EvidenceKind.ANALYTIC, removed=3)
        self.run.write(FiltersRecord(space_size=16, considered=16, filters=(filter_,), left=13))

    def deployments(self) -> None:
        observations = []
        for deployment in (FLOAT, INT8, OTHER):
            (measurement,) = self.session.measure([self.job(deployment.backend)], PLAN)
            low = figure_of(measurement, "latency.p5")
            arch = Arch.of({"width": 8})
            observations.append(
                DeploymentObservation(
                    deployment=deployment, arch=arch, measurement=measurement, size_bytes=100, p5_us=low
                )
            )
        slower = NeverSlower(
            deployment=INT8, ratio=1.4, faster=False, smaller=True, regressed=(f"CONV_2D {self.name}",)
        )
        self.run.write(
            DeploymentsRecord(
                reference_archs=(Arch.of({"width": 8}),),
                observations=tuple(observations),
                kept=(FLOAT, INT8),
                dropped=(DroppedDeployment(deployment=OTHER, reason=f"2.00x the latency of {self.name}"),),
                never_slower=(slower,),
                noise=0.004,
                tail=1.1,
            )
        )

    def trials(self, count: int = 3) -> None:
        for number in range(count):
            (measurement,) = self.session.measure([self.job()], PLAN)
            kind = AccuracyKind.TORCH
            accuracy = Accuracy(value=0.8 + number / 20, kind=kind, split="validation", samples=50, method="short")
            self.run.write(
                TrialRecord(
                    number=number,
                    candidate=self.candidate(width=8 * (number + 1)),
                    asked=number,
                    features=FEATURES,
                    outcome="measured",
                    size_bytes=100,
                    measurement=measurement,
                    figures=figures_of(measurement, size_bytes=100),
                    accuracy=accuracy,
                )
            )
        self.run.write(
            TrialRecord(
                number=count,
                candidate=self.candidate(),
                asked=0,
                features=FEATURES,
                outcome="crashed",
                detail=f"SIGSEGV in {self.name}",
            )
        )

    def finalist(self, chosen: bool = True) -> FinalistRecord:
        job = self.job()
        (measurement,) = self.session.measure([job], PLAN)
        accuracy = Accuracy(
            value=0.95, kind=AccuracyKind.ARTEFACT, split="validation", samples=50, method="the exported file"
        )
        figures = (*figures_of(measurement, size_bytes=job.artefact.size_bytes), self.scored())
        record = FinalistRecord(
            rank=1,
            trial=2,
            candidate=self.candidate(),
            student=digest_json("student"),
            artefact=job.artefact,
            curve=tuple(
                CurvePoint(epoch=epoch, loss=1.0, validation=0.5 + epoch / 10, rate=0.1, images_per_s=100.0)
                for epoch in range(4)
            ),
            accuracy=accuracy,
            measurement=measurement,
            figures=figures,
            verdict=judge(self.target, figures),
            never_slower=NeverSlower(deployment=INT8, ratio=0.6, faster=True, smaller=True),
            chosen=chosen,
            reason=f"the most accurate, says {self.name}",
        )
        self.run.write(record)
        return record

    def stages(self) -> None:
        (measurement,) = self.session.measure([self.job()], PLAN)
        accuracy = Accuracy(value=0.9123, kind=AccuracyKind.ARTEFACT, split="validation", samples=50, method="file")
        plain = {"precision": Precision.FLOAT32, "student": digest_json("student")}
        gone = StageObservation(
            stage="inherited", accuracy=None, size_bytes=None, p5_us=None, detail=f"gone, says {self.name}", **plain
        )
        low = figure_of(measurement, "latency.p5")
        done = StageObservation(stage="distill", accuracy=accuracy, size_bytes=300, p5_us=low, **plain)
        self.run.write(StagesRecord(finalist=1, backend=LITERT, stages=(gone, done)))

    def scored(self) -> Figure:
        kind = EvidenceKind.MEASURED
        return Figure(metric="accuracy", value=0.94, unit="", kind=kind, subject="file", method="50 samples")

    def outcome(self, exit_code: int = 0, chosen: int | None = 1, summary: str = "a student was found") -> None:
        detail = (f"nearest: {self.name}",)
        self.run.write(OutcomeRecord(exit_code=exit_code, summary=summary, chosen=chosen, seconds=309.0, detail=detail))

    def certificate(self, finalist: FinalistRecord) -> Certificate:
        accuracy = Accuracy(
            value=0.94, kind=AccuracyKind.ARTEFACT, split="test", samples=50, method="the exported file"
        )
        record = Certificate(
            created="2026-01-01T00:00:00+00:00",
            target=self.target,
            fingerprint=self.header.fingerprint,
            task=self.header.task,
            candidate=finalist.candidate,
            model="model.tflite",
            format=Format.TFLITE,
            backend=LITERT,
            files=(),
            figures=finalist.figures,
            plan=PLAN,
            verdict=judge(self.target, finalist.figures),
            accuracy=accuracy,
            float_twin=None,
            parity=Parity(samples=50, agree=50, largest=0.01, unit="of the largest logit"),
            teacher=self.name,
            export={},
            versions={},
            seed=7,
            run="paper",
        )
        bundle = self.run.folder / "bundle"
        bundle.mkdir()
        write_json(bundle / CERTIFICATE, record)
        return record

    def job(self, backend: Backend = LITERT) -> Job:
        form = formats_of(backend)[0]
        artefact = Artefact(path=Path("artefacts/model"), format=form, sha256=digest_json("model"), size_bytes=300)
        return Job(artefact=artefact, backend=backend)

    def whole(self) -> Run:
        """Everything a finished, certified run has."""
        self.filters()
        self.deployments()
        self.trials()
        finalist = self.finalist()
        self.stages()
        self.outcome()
        self.certificate(finalist)
        return self.run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Written]:
    return lambda **changes: Written(tmp_path / "run", **changes)
