"""Signals (N, C, T) in all three formats: convolutions over time, and raw samples in front of a log-mel front end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import check_parity
from edgekd.export.tensors import to_model_inputs
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.dscnn import DsCnn
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, SoundSpec, TaskSpec

EXPORTERS: dict[str, tuple[Exporter, str]] = {
    "litert/xnnpack": (TfliteExporter(), ".tflite"),
    "onnxruntime/cpu": (OnnxExporter(), ".onnx"),
    "openvino/cpu": (OpenvinoExporter(), ".xml"),
}
SENSORS = InputSpec(
    name="signal", shape=(2, 64), raw_dtype="float32", raw_range=(-1.0, 1.0), mean=(0.1, -0.1), std=(0.3, 0.5)
)
SOUND = InputSpec(
    name="signal", shape=(1, 800), raw_dtype="float32", raw_range=(-1.0, 1.0), std=(0.3,),
    sound=SoundSpec(rate=8000, samples=800),
)  # fmt: skip


class OverTime(nn.Module):
    """As for sensors: a dense stem, a depthwise and a pointwise convolution, a pool, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 8, 9, 2, 4, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 16, 1, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        )  # fmt: skip
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean(2))


def student_of(name: str) -> tuple[Student, NDArray[Any]]:
    """An untrained student, and raw samples."""
    torch.manual_seed(0)
    given = SENSORS if name == "over-time" else SOUND
    spec = TaskSpec(name="tones", input=given, head=HeadSpec(classes=5), data="0" * 64)
    if name == "over-time":
        student = Student(module=OverTime().eval(), task=spec, family="mine", options={}, arch=Arch.of({}))
    else:
        family = DsCnn.model_validate(
            {"space": {"width": 8, "depth": 1, "stem_stride": [2]}, "stages": 2, "log_mel": {"mels": 16}}
        )
        student = new_student(family, family.space(spec).at(0), spec, seed=0)
    for part in student.module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    rng, times = np.random.default_rng(0), np.arange(given.shape[1])
    tones = np.sin(times * rng.uniform(0.05, 1.5, (32, given.shape[0], 1)))
    return student, (0.6 * tones + 0.1 * rng.standard_normal(tones.shape)).clip(-1, 1).astype(np.float32)


@pytest.mark.runtime
@pytest.mark.parametrize("backend", EXPORTERS)
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("over-time", Precision.FLOAT32),
        ("over-time", Precision.INT8),
        ("over-time", Precision.DYNAMIC_INT8),
        ("log-mel", Precision.FLOAT32),
        ("log-mel", Precision.FLOAT16),
        ("log-mel", Precision.DYNAMIC_INT8),
        ("log-mel", Precision.INT4_WEIGHTS),
        ("log-mel", Precision.INT8),
    ],
)
def test_answers_are_the_students(
    name: str, precision: Precision, backend: str, this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, here = EXPORTERS[backend], Backend.model_validate(backend), this_computer.describe()
    raw, samples = student_of(name)
    student = calibrate(raw, samples, precision, "minmax", here, where)
    layout: Any = "nchw" if precision is Precision.DYNAMIC_INT8 else "nhwc"
    options, path = ExportOptions(layout=layout), tmp_path / f"model{suffix}"
    job = Job(artefact=exporter.export(student, options, where, here, path), backend=where)
    assert check_parity(this_computer, job, student, samples, options, tmp_path / "parity").holds
    if precision is Precision.INT8 and name == "over-time":
        left = [each.lower() for each in float_operators(path) or ()]  # the ends' own conversions and normalisation
        assert not any(kind in each for each in left for kind in ("conv", "gemm", "fully", "pool", "mean (")), left
    if name == "log-mel":
        islands = {key.partition(":")[0] for key in student.annotations.float_operators}
        assert islands == ({"front"} if precision is Precision.INT8 else set())
        assert not any(name.startswith("front") for name in student.annotations.weights)


def test_a_signal_has_its_channels_where_the_options_say() -> None:
    spec = TaskSpec(name="tones", input=SENSORS, head=HeadSpec(classes=5), data="0" * 64)
    raw = np.random.default_rng(0).random((3, 2, 64), np.float32)
    last, first = ExportOptions(), ExportOptions(layout="nchw")
    assert (last.axes(SENSORS), last.shape(SENSORS)) == ("ntc", (1, 64, 2))
    assert (first.axes(SENSORS), first.shape(SENSORS)) == ("nct", (1, 2, 64))
    assert np.array_equal(to_model_inputs(raw, spec, last, None)[0], raw.transpose(0, 2, 1))
    assert np.array_equal(to_model_inputs(raw, spec, first, None)[0], raw)
