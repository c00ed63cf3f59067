"""Sums that OpenVINO computes in a convolution's kernel: the reference of that runtime, value by value."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.artefacts import Artefact, Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.rules import fused_sums, points_of
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import compared, expected_answers
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.graph import trace
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

BACKEND = Backend.model_validate("openvino/cpu")
SPEC = TaskSpec(
    name="sums",
    input=InputSpec(shape=(3, 12, 12), raw_dtype="float32", raw_range=(-3.0, 3.0)),
    head=HeadSpec(classes=40),
    data="0" * 64,
)


class Net(nn.Module):
    """A convolution, a block under test, and a linear layer on all pixels' means."""

    def __init__(self, block: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.second, self.third = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.classes, self.block = nn.Linear(16, 40), block

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.block(self, torch.relu(self.stem(x))).mean((2, 3)))


def residual(net: Net, x: Tensor) -> Tensor:
    return torch.relu(net.second(torch.relu(net.first(x))) + x)


def rectified(net: Net, x: Tensor) -> Tensor:
    return x + torch.relu(net.second(torch.relu(net.first(x))))


def both(net: Net, x: Tensor) -> Tensor:
    return torch.relu(net.third(x) + net.second(torch.relu(net.first(x))))


def own_input(net: Net, x: Tensor) -> Tensor:
    return torch.relu(net.first(x) + x)


def read_twice(net: Net, x: Tensor) -> Tensor:
    made = net.second(torch.relu(net.first(x)))
    return torch.relu(made + x) + net.third(made)


def kept(net: Net, x: Tensor) -> Tensor:
    return net.third(x) + torch.relu(net.second(torch.relu(net.first(x))) + x)


def limited(net: Net, x: Tensor) -> Tensor:
    return torch.relu(nn.functional.relu6(net.second(torch.relu(net.first(x)))) + x)


def no_convolution(net: Net, x: Tensor) -> Tensor:
    return torch.relu(torch.relu(net.first(x)).mean((2, 3), keepdim=True) + x)


BLOCKS = {
    residual: 1, rectified: 1, both: 1, own_input: 0, read_twice: 1, kept: 1, limited: 1, no_convolution: 0
}  # fmt: skip
here = pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of another architecture")


def student_of(block: Callable[[Net, Tensor], Tensor]) -> Student:
    torch.manual_seed(0)
    return Student(module=Net(block).eval(), task=SPEC, family=block.__name__, options={}, arch=Arch.of({}))


@here
@pytest.mark.runtime
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_a_file_answers_as_the_reference_of_its_runtime(
    block: Callable[[Net, Tensor], Tensor], this_computer: DeviceSession, tmp_path: Path
) -> None:
    raw = np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32)
    device, options = this_computer.describe(), ExportOptions()
    student = calibrate(student_of(block), raw, Precision.INT8, "percentile", device, BACKEND, percentile=97)
    traced = trace(student, decomposed=False)
    assert len(fused_sums(traced, points_of(traced))) == BLOCKS[block]
    artefact = OpenvinoExporter().export(student, options, BACKEND, device, tmp_path / "model.xml")
    job = Job(artefact=artefact, backend=BACKEND)
    found = file_answers(this_computer, job, student, raw, options, tmp_path)
    report = compared(job, student, raw, options, found)
    assert report.holds
    assert np.array_equal(report.expected, expected_answers(student, raw, options, BACKEND))
    plain, own = (np.abs(found - expected_answers(student, raw, options, of)) for of in (None, BACKEND))
    step = student.annotations.activations["classes:linear"].scale[0]
    assert (own > step / 2).mean() < 0.003, "ties alone may differ"
    assert ((plain > step / 2).mean() > 0.006) == bool(BLOCKS[block])


@here
@pytest.mark.runtime
@pytest.mark.parametrize("kept_float", ["second", ":add"])
def test_beside_float_islands_it_rounds(kept_float: str, this_computer: DeviceSession, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32)
    device, options = this_computer.describe(), ExportOptions()
    student = calibrate(
        student_of(residual), raw, Precision.INT8, "percentile", device, BACKEND, percentile=97, keep_float=[kept_float]
    )
    traced = trace(student, decomposed=False)
    assert fused_sums(traced, points_of(traced, frozenset(student.annotations.float_operators))) == {}
    artefact = OpenvinoExporter().export(student, options, BACKEND, device, tmp_path / "model.xml")
    found = file_answers(this_computer, Job(artefact=artefact, backend=BACKEND), student, raw, options, tmp_path)
    own = np.abs(found - expected_answers(student, raw, options, BACKEND))
    assert (own > student.annotations.activations["classes:linear"].scale[0] / 2).mean() < 0.003


def test_a_file_whose_kernels_round_every_value_is_right_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32)
    student = calibrate(student_of(residual), raw, Precision.INT8, "percentile", percentile=97)
    rounded, options = expected_answers(student, raw, ExportOptions()), ExportOptions()
    path = tmp_path / "model.xml"
    path.write_text("never read")
    path.with_suffix(".bin").write_text("")
    for name in ("_LARGEST_STEPS", "_OF_ALL"):
        monkeypatch.setattr(f"edgekd.export.parity.{name}", 0.0)
    report = compared(Job(artefact=Artefact.of(path), backend=BACKEND), student, raw, options, rounded)
    assert report.holds
    assert np.array_equal(report.expected, rounded)
