"""A bundle on paper: its model is a few bytes, its device is a fake, and everything else is the real thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.bundle.card import card_text
from edgekd.bundle.example import example_source
from edgekd.bundle.preprocess import PREPROCESS, preprocess_of
from edgekd.bundle.samples import SAMPLES, Samples, samples_bytes
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.export._protocol import ExportOptions
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.measure.figures import figures_of
from edgekd.records import digest_file
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, BundledFile, Certificate, Parity
from edgekd.store.records import Accuracy
from edgekd.targets.target import Target
from edgekd.targets.verdict import judge
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.fakes.device import FakeDevice, TimingNoise

LITERT = Backend.model_validate("litert/xnnpack")
PLAN = MeasurePlan(processes=5, rounds=3)
COUNT = 20


@pytest.fixture
def spec() -> TaskSpec:
    return TaskSpec(
        name="shapes",
        input=InputSpec(shape=(3, 4, 5), mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0)),
        head=HeadSpec(classes=3, labels=("round", "flat", "other")),
        data="0" * 64,
    )


@pytest.fixture
def samples(spec: TaskSpec) -> Samples:
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (COUNT, *spec.input.shape), dtype=np.uint8)
    answers = random.standard_normal((COUNT, 3)).astype(np.float32)
    return Samples(raw, np.argmax(answers, axis=1).astype(np.int64), answers)


def device(samples: Samples, latency_us: float = 100.0, noise: TimingNoise | None = None, **changes: Any) -> FakeDevice:
    """Answers as the student did, whatever it is asked."""

    def answer(job: Job, inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        assert inputs[0].shape == (COUNT, 4, 5, 3)
        return [changes.pop("answers", samples.answers)]

    known = {key: value for key, value in changes.items() if key != "answers"}
    quiet = TimingNoise(low=0.001, body=0.001, tail=0.01)
    return FakeDevice(lambda job: latency_us, noise=noise or quiet, answer=answer, **known)


@pytest.fixture
def target() -> Target:
    return Target.model_validate(
        {
            "name": "paper",
            "device": "fake-device",
            "backends": ["litert/xnnpack"],
            "budgets": {
                "latency": {"p95": "200 us"},
                "size": {"file": "1 KiB"},
                "memory": {"model": "1 MiB", "report": True},
            },
            "accuracy": {"floor": 0.8},
        }
    )


@pytest.fixture
def certificate(spec: TaskSpec, samples: Samples, target: Target, tmp_path: Path) -> Certificate:
    path = tmp_path / "made" / "model.tflite"
    path.parent.mkdir()
    path.write_bytes(b"a model of few bytes")
    session = device(samples).open()
    job = Job(artefact=Artefact.of(path), backend=LITERT)
    (measurement,) = session.measure([job], PLAN)
    accuracy = Accuracy(value=0.9, kind=AccuracyKind.ARTEFACT, split="test", samples=50, method="the exported file")
    scored = Figure(
        metric="accuracy",
        value=0.9,
        unit="",
        kind=EvidenceKind.MEASURED,
        subject=job.artefact.sha256,
        method="50 samples",
    )
    figures = (*figures_of(measurement, size_bytes=job.artefact.size_bytes), scored)
    return Certificate(
        created="2026-01-01T00:00:00+00:00",
        target=target,
        fingerprint=session.describe(),
        task=spec,
        candidate=Candidate(family="paper", arch=Arch.of({"width": 8}), backend=LITERT),
        model="model.tflite",
        format=Format.TFLITE,
        backend=LITERT,
        files=(),
        figures=figures,
        plan=PLAN,
        verdict=judge(target, figures),
        accuracy=accuracy,
        float_twin=None,
        parity=Parity(samples=COUNT, agree=COUNT, largest=0.0, unit="of the largest logit"),
        teacher="none",
        export={},
        versions={},
        seed=0,
        run="paper",
    )


@pytest.fixture
def bundle(certificate: Certificate, spec: TaskSpec, samples: Samples, tmp_path: Path) -> Path:
    folder, options = tmp_path / "bundle", ExportOptions(input="uint8")
    folder.mkdir()
    (folder / "model.tflite").write_bytes((tmp_path / "made" / "model.tflite").read_bytes())
    (folder / SAMPLES).write_bytes(samples_bytes(samples))
    write_json(folder / PREPROCESS, preprocess_of(spec, options, None, None))
    (folder / "README.md").write_text(card_text(certificate))
    (folder / "example.py").write_text(example_source("model.tflite", LITERT, 1, options, spec, None))
    roles = {
        "model.tflite": "model",
        SAMPLES: "samples",
        PREPROCESS: "preprocess",
        "README.md": "card",
        "example.py": "example",
    }
    files = tuple(
        BundledFile.model_validate(
            {
                "name": name,
                "role": role,
                "sha256": digest_file(folder / name),
                "size_bytes": (folder / name).stat().st_size,
            }
        )
        for name, role in roles.items()
    )
    write_json(folder / CERTIFICATE, certificate.but(files=files))
    return folder


@pytest.fixture
def make_device(samples: Samples) -> Callable[..., FakeDevice]:
    return lambda **changes: device(samples, **changes)
