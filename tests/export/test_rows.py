"""Linear layers over several rows, which ONNX writes as a product and a sum: int8 files answer as their reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.parity import expected_answers
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec


class Rows(nn.Module):
    """A linear layer over the steps of a signal, whose results are the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(6, 48)

    def forward(self, signal: Tensor) -> Tensor:
        return self.rows(signal.transpose(1, 2)).flatten(1)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime/cpu", "openvino/cpu", "litert/xnnpack"])
def test_their_biases_are_those_of_the_reference(runtime: str, this_computer: DeviceSession, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = TaskSpec(
        name="rows",
        input=InputSpec(shape=(6, 16), raw_dtype="float32", raw_range=(-3.0, 3.0)),
        head=HeadSpec(classes=16 * 48),
        data="0" * 64,
    )
    student = Student(module=Rows().eval(), task=spec, family="rows", options={}, arch=Arch.of({}))
    raw = np.random.default_rng(0).normal(size=(64, 6, 16)).astype(np.float32)
    device, options, backend = this_computer.describe(), ExportOptions(), Backend.model_validate(runtime)
    student = calibrate(student, raw, Precision.INT8, "minmax", device, backend)
    form = {"onnxruntime": Format.ONNX, "openvino": Format.OPENVINO, "litert": Format.TFLITE}[backend.runtime]
    exporter: Exporter = plugins.load("edgekd.exporters", form.value)()
    artefact = exporter.export(student, options, backend, device, tmp_path / f"model{form.suffix}")
    found = file_answers(this_computer, Job(artefact=artefact, backend=backend), student, raw, options, tmp_path)
    steps = np.abs(found - expected_answers(student, raw, options, backend))
    steps /= student.annotations.activations["rows:linear"].scale[0]
    assert steps.max() < 1.5
    assert (steps > 0.5).mean() < 1e-4, "ties alone may differ"  # with the biases in float 1e-3 of them do
