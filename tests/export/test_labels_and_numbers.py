"""Several labels and numbers in the three runtimes: files answer as their student does, and so does the example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.bundle.example import example_source
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.parity import check_parity, expected_answers
from edgekd.export.tensors import normalised
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.outputs import answering
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec
from edgekd.testing.fakes.spots import LABELS, NUMBERS, SpotTask

WHERE = {"onnx": "onnxruntime/cpu", "tflite": "litert/xnnpack", "openvino": "openvino/cpu"}
HEADS = {"labels": (LABELS,), "numbers": (NUMBERS,), "both": (LABELS, NUMBERS)}


def student_of(task: SpotTask) -> Student:
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2})
    return new_student(family, family.space(task.spec).at(0), task.spec, 0)


@pytest.mark.runtime
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("form", list(WHERE))
@pytest.mark.parametrize("heads", list(HEADS))
def test_files_answer_as_their_student(
    this_computer: DeviceSession, tmp_path: Path, heads: str, form: str, precision: Precision
) -> None:
    task, backend, here = SpotTask(HEADS[heads]), Backend.model_validate(WHERE[form]), this_computer.describe()
    exporter: Exporter = plugins.load("edgekd.exporters", form)()
    ready = calibrate(student_of(task), task.split("calibration").inputs, precision, "minmax", here, backend)
    raw, options, model = task.split("validation").inputs, ExportOptions(), f"model{Format(form).suffix}"
    assert not exporter.check(ready, options, backend, here)
    artefact = exporter.export(ready, options, backend, here, tmp_path / model)
    job = Job(artefact=artefact, backend=backend)
    report = check_parity(this_computer, job, ready, raw, options, tmp_path / "scratch")
    assert report.holds, report.detail
    assert report.agree == len(raw)

    np.savez(tmp_path / "samples.npz", inputs=raw, labels=task.split("validation").labels)
    source = example_source(model, backend, 1, options, task.spec, None)
    (tmp_path / "example.py").write_text(source)
    ran = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    expected = expected_answers(ready, raw[:1], options)[0]
    lines = dict(line.split(": ", 1) for line in ran.stdout.splitlines() if ": " in line)
    if "labels" in HEADS[heads][0].name:
        assert lines["labels"] == f"labels {np.flatnonzero(expected['labels'] > 0)}"
    if NUMBERS in HEADS[heads]:
        printed = [float(word) for word in lines["numbers"].removeprefix("numbers ").strip("[]").split()]
        assert np.abs((np.asarray(printed) - expected["numbers"]) / NUMBERS.std).max() < 0.2


class Numbers(nn.Module):
    """A person's network: it predicts in the labels' own units."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.numbers, self.last = nn.Linear(8, 2), last
        with torch.no_grad():
            self.numbers.bias.copy_(torch.tensor(NUMBERS.mean))
            self.numbers.weight.mul_(torch.tensor(NUMBERS.std)[:, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.numbers(self.features(images)))


@pytest.mark.runtime
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("form", list(WHERE))
def test_numbers_of_different_size_from_ones_own_model(
    this_computer: DeviceSession, tmp_path: Path, form: str, precision: Precision
) -> None:
    """The second number is a thousand times smaller than the first, and as exact."""
    task, backend, here = SpotTask([NUMBERS]), Backend.model_validate(WHERE[form]), this_computer.describe()
    torch.manual_seed(0)
    model, raw, options = Numbers(nn.Identity()).eval(), task.split("validation").inputs, ExportOptions()
    with torch.no_grad():
        own = model(torch.from_numpy(normalised(raw, task.spec))).numpy()
    student = Student(answering(model, task.spec), task.spec, "own", {}, Arch.of({}))
    ready = calibrate(student, task.split("calibration").inputs, precision, "minmax", here, backend)
    path = tmp_path / f"model{Format(form).suffix}"
    exporter: Exporter = plugins.load("edgekd.exporters", form)()
    job = Job(artefact=exporter.export(ready, options, backend, here, path), backend=backend)
    report = check_parity(this_computer, job, ready, raw, options, tmp_path / "scratch")
    assert report.holds, report.detail
    assert np.abs((expected_answers(ready, raw, options)["numbers"] - own) / NUMBERS.std).max() < 0.1


def test_numbers_that_no_linear_layer_returns_are_standardised_behind_it() -> None:
    task = SpotTask([NUMBERS])
    torch.manual_seed(0)
    model = Numbers(nn.Softplus()).eval()
    inputs = torch.from_numpy(normalised(task.split("validation").inputs, task.spec))
    with torch.no_grad():
        own = model(inputs)
        weights = model.numbers.weight.clone()
        found = answering(model, task.spec)(inputs)["numbers"]
    assert torch.allclose(found, (own - torch.tensor(NUMBERS.mean)) / torch.tensor(NUMBERS.std), atol=1e-4)
    assert torch.equal(model.numbers.weight, weights)


@pytest.mark.parametrize(
    ("head", "change"),
    [
        (LABELS, lambda logits: logits + 0.1),
        (NUMBERS, lambda numbers: numbers + np.float32([0, 0.05])),
        (NUMBERS, lambda numbers: numbers * np.nan),
    ],
)
def test_each_head_is_looked_at(head: HeadSpec, change: object) -> None:
    from edgekd.export.parity_heads import head_differences

    task = SpotTask()
    student, raw = student_of(task), task.split("validation").inputs
    with torch.inference_mode():
        expected = student.module((torch.from_numpy(raw).float() - 40) / 50)
    steps = {name: 1e-3 * float(value.abs().max()) for name, value in expected.items()}
    rows = expected_answers(student, raw, ExportOptions())
    assert all(gaps.max() < 0.1 for gaps in head_differences(task.spec, expected, steps, rows).values())
    rows[head.name] = change(rows[head.name])  # type: ignore[operator]
    wrong = head_differences(task.spec, expected, steps, rows)
    assert wrong[head.name].max() > 1
    assert all(gaps.max() < 0.1 for name, gaps in wrong.items() if name != head.name)
