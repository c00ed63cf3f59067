"""Several heads in every format and precision answer as their student does; others are found out."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.distill.predict import predict
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.parity import check_parity, expected_answers
from edgekd.export.parity_heads import head_differences
from edgekd.ir.numerics import Precision
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.students.fold import folded
from edgekd.students.resnet import ResNet
from edgekd.students.student import load_student, new_student, save_student
from edgekd.tasks.shapes import Shapes

TASK = Shapes(train=24, test=4, validation=8, calibration=16, side=32)
WHERE = {"onnx": "onnxruntime/cpu", "tflite": "litert/xnnpack", "openvino": "openvino/cpu"}


@pytest.fixture(scope="module")
def student() -> Student:
    family = ResNet.model_validate({"space": {"width": [16, 16], "depth": [1, 1]}, "stages": 2})
    made = new_student(family, family.space(TASK.spec).at(0), TASK.spec, 0)
    with torch.no_grad():  # heads begin with hardly any spread, and parity of a constant says nothing
        made.module.get_parameter("heads.heads.1.heat.weight").mul_(30)
        made.module.get_parameter("heads.heads.1.box.weight").mul_(20)
        made = folded(made)
        for parameter in made.module.parameters():  # of half precision: one conversion for all but int8
            parameter.copy_(parameter.half().float())
    return made


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("form", "precision"),
    [(form, each) for form in WHERE for each in precisions_of(Backend.model_validate(WHERE[form]))],
)
def test_files_answer_as_their_student(
    student: Student, this_computer: DeviceSession, tmp_path: Path, form: str, precision: Precision
) -> None:
    backend, here = Backend.model_validate(WHERE[form]), this_computer.describe()
    exporter: Exporter = plugins.load("edgekd.exporters", form)()
    ready = calibrate(student, TASK.split("calibration").inputs, precision, "minmax", here, backend)
    save_student(ready, tmp_path / "student")
    ready = load_student(tmp_path / "student")
    raw = TASK.split("validation").inputs
    for options in (ExportOptions(input="uint8"), ExportOptions(layout="nchw", preprocess="stated", batch=3)):
        assert not exporter.check(ready, options, backend, here)
        artefact = exporter.export(ready, options, backend, here, tmp_path / f"model{Format(form).suffix}")
        job = Job(artefact=artefact, backend=backend)
        report = check_parity(this_computer, job, ready, raw, options, tmp_path / "scratch")
        assert report.holds, report.detail
        found = file_answers(this_computer, job, ready, raw, options, tmp_path / "scratch")
        assert found.dtype == predict(ready.module, raw, TASK.spec).dtype
    other = ready.but(module=copy.deepcopy(ready.module))
    with torch.no_grad():
        next(iter(other.module.parameters())).mul_(1.5)
    assert not check_parity(this_computer, job, other, raw, options, tmp_path / "scratch").holds


def test_what_no_file_can_have_is_refused_in_words(student: Student) -> None:
    for form, options, words in (
        ("onnx", ExportOptions(output="uint8"), "one classification head"),
        ("tflite", ExportOptions(batch="dynamic"), "dynamic batch"),
    ):
        exporter: Exporter = plugins.load("edgekd.exporters", form)()
        problems = exporter.check(student, options, Backend.model_validate(WHERE[form]), None)
        assert any(words in problem.message for problem in problems)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "head", "change"),
    [
        ("things.boxes", "things", lambda boxes: boxes + 1.0),
        ("things.scores", "things", lambda scores: scores * 0.9),
        ("things.classes", "things", lambda kinds: (kinds + 1) % 3),
        ("mask", "mask", lambda mask: (mask + 1) % 4),
        ("scene", "scene", lambda logits: logits + 0.1),
        ("things.scores", "things", lambda scores: scores * 0),
        ("things.boxes", "things", lambda boxes: boxes * np.nan),
    ],
)
def test_each_field_is_looked_at(student: Student, field: str, head: str, change: object) -> None:
    raw = TASK.split("validation").inputs
    with torch.inference_mode():
        mean, std = TASK.spec.input.mean[0], TASK.spec.input.std[0]
        expected = student.module((torch.from_numpy(raw).float() - mean) / std)
    steps = {name: 1e-3 * float(value.abs().max()) for name, value in expected.items()}
    rows = expected_answers(student, raw, ExportOptions())
    right = head_differences(TASK.spec, expected, steps, rows)
    assert all(gaps.max() < 0.01 for gaps in right.values())
    rows[field] = change(rows[field])  # type: ignore[operator]
    wrong = head_differences(TASK.spec, expected, steps, rows)
    assert wrong[head].max() > 1
    assert all(gaps.max() < 0.01 for name, gaps in wrong.items() if name != head)
