"""A finalist's file says by itself what it is, in every format, and answers as it would without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import __version__
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.converter import Converter
from edgekd.export.facts import facts_of
from edgekd.export.metadata import read_facts, write_facts
from edgekd.export.tflite.flatbuffer import metadata_of, read_model
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.records import digest_json
from edgekd.search._protocol import EstimateContext
from edgekd.search.finalists.trainer import RecipeTrainer
from edgekd.store.records import RunHeader
from edgekd.store.run import Run
from edgekd.students.resnet import ResNet
from edgekd.students.student import load_student
from edgekd.targets.target import Target
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.fakes.device import fake_fingerprint

ODD = 'é "<&\u00a0\u0001\n\ud800'
ARCH = Arch.of({"width1": 8, "depth1": 1})


def header(spec: TaskSpec) -> RunHeader:
    return RunHeader(
        id="bars-3",
        command="search",
        created="2026-01-01T12:34:56+00:00",
        project={},
        project_file="project.yaml",
        target=Target.model_validate({"name": "t", "device": "this-computer", "backends": ["litert/xnnpack"]}),
        task=spec,
        teacher="ensemble of two",
        teacher_digest=digest_json(None),
        family="resnet",
        fingerprint=fake_fingerprint(),
        versions={},
        seed=11,
        budget_s=None,
    )


def candidate(backend: str, precision: Precision) -> Candidate:
    plan = CompressionPlan(precision=precision)
    return Candidate(family="resnet", arch=ARCH, plan=plan, backend=Backend.model_validate(backend))


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("backend", "precision", "arithmetic"),
    [
        (
            "onnxruntime/cpu",
            Precision.DYNAMIC_INT8,
            "weights stored in 8 bits; linear layers quantize their inputs to 8 bits at run time, "
            "convolutions compute in float",
        ),
        ("litert/xnnpack", Precision.INT8, "weights and activations in 8 bits"),
        ("openvino/cpu", Precision.FLOAT16, "weights stored in 16 bits, computed in float"),
    ],
)
def test_a_finalists_file_says_what_it_is(
    backend: str,
    precision: Precision,
    arithmetic: str,
    task: Any,
    converter: Converter,
    this_computer: DeviceSession,
    tmp_path: Path,
) -> None:
    run = Run.create(tmp_path / "run", header(task.spec))
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 1})
    context = EstimateContext(
        task=task,
        teacher=None,
        family=family,
        recipe=(),
        fingerprint=this_computer.describe(),
        students=run.students,
        stages=run.stages,
        cache=run.scratch,
        seed=11,
        progress=lambda _: None,
        stop=lambda: False,
    )
    options, wanted = ExportOptions(input="uint8"), candidate(backend, precision)
    trainer = RecipeTrainer(run, context, this_computer, converter, options)
    refined, twin = trainer.refine(wanted), trainer.twin(wanted)
    assert refined.artefact is not None, refined.detail
    assert refined.accuracy is not None, refined.detail
    assert twin is not None
    described = run.resolve(refined.artefact)
    assert read_facts(described.path) == {
        "task": "bars",
        "classes": "3",
        "input": "image",
        "input_shape": "[1,8,8,1]",
        "input_layout": "nhwc",
        "input_dtype": "uint8",
        "mean": "[60.0]",
        "std": "[60.0]",
        "preprocess": "fold",
        "family": "resnet",
        "arch": '{"depth1":1,"width1":8}',
        "precision": precision.value,
        "arithmetic": arithmetic,
        "teacher": "ensemble of two",
        "edgekd": __version__,
        "run": "bars-3",
        "seed": "11",
    }
    assert read_facts(twin.path)["precision"] == "float32"
    assert read_facts(twin.path).keys() == read_facts(described.path).keys()
    assert Artefact.of(described.path) == described  # hashed as it lies there, with its facts
    assert trainer.refine(wanted) == refined

    student = load_student(run.students / refined.student)
    plain = converter.convert(
        run.students / refined.student,
        described.format,
        options,
        Backend.model_validate(backend),
        context.fingerprint,
        tmp_path / f"plain{described.format.suffix}",
    )
    assert plain.artefact is not None, plain.detail
    assert plain.artefact.size_bytes < described.size_bytes
    if described.format is Format.TFLITE:
        assert "TFLITE_METADATA" in metadata_of(read_model(described.path.read_bytes()))
    raw = task.split("validation").inputs
    answers = [
        file_answers(
            this_computer, Job(artefact=file, backend=Backend.model_validate(backend)), student, raw, options, tmp_path
        )
        for file in (plain.artefact, described)
    ]
    np.testing.assert_array_equal(*answers)


@pytest.mark.runtime
@pytest.mark.parametrize("file_format", list(Format))
def test_any_name_and_label_comes_back(
    file_format: Format, converter: Converter, calibrated: Any, tmp_path: Path
) -> None:
    from edgekd.students.student import save_student

    labels = (ODD, "plain")
    spec = TaskSpec(
        name=ODD, input=InputSpec(shape=(3, 4, 5)), head=HeadSpec(classes=2, labels=labels), data=digest_json(None)
    )
    facts = facts_of(header(spec), candidate("openvino/cpu", Precision.FLOAT32), ExportOptions(), file_format)
    save_student(calibrated[Precision.FLOAT32], tmp_path / "student")
    backend = {Format.ONNX: "onnxruntime/cpu", Format.TFLITE: "litert/xnnpack", Format.OPENVINO: "openvino/cpu"}
    made = converter.convert(
        tmp_path / "student",
        file_format,
        ExportOptions(),
        Backend.model_validate(backend[file_format]),
        None,
        tmp_path / f"model{file_format.suffix}",
        facts,
    )
    assert made.artefact is not None, made.detail
    assert read_facts(made.artefact.path) == facts
    assert tuple(json.loads(facts["labels"])) == labels
    assert all(value.isprintable() for value in facts.values())
    assert write_facts(made.artefact.path, facts) == made.artefact  # nothing of the moment is in them


def test_facts_are_of_the_file_and_not_of_the_backend_or_the_hour() -> None:
    spec = TaskSpec(name="t", input=InputSpec(shape=(3, 4, 5)), head=HeadSpec(classes=2), data=digest_json(None))
    options = ExportOptions(layout="nchw", batch="dynamic", preprocess="stated")
    found = facts_of(header(spec), candidate("litert/xnnpack", Precision.INT8), options, Format.TFLITE)
    assert found["input_shape"] == '["dynamic",3,4,5]'
    assert found["preprocess"] == "stated"
    assert "labels" not in found  # nobody named the classes
    later = header(spec).but(created="2027-02-03T00:00:00+00:00")
    assert facts_of(later, candidate("litert/builtin", Precision.INT8), options, Format.TFLITE) == found
