"""Parity fails where a file is wrong, names the operator, and lets ties be ties; scores are the task's own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekd import plugins
from edgekd.artefacts import Artefact, Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.divergence import first_divergence
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.parity import (
    ParityReport,
    _beside_quantization,
    _compare,
    check_parity,
    compared,
    expected_answers,
)
from edgekd.export.score import score_artefact
from edgekd.ir.backends import formats_of
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Score, Split, SplitName, TaskSpec
from edgekd.tasks.score import top1

ORT = Backend.model_validate("onnxruntime/cpu")
OPTIONS = ExportOptions(input="uint8", output="uint8")


@pytest.fixture
def path(calibrated: dict[Precision, Student], tmp_path: Path) -> Path:
    OnnxExporter().export(calibrated[Precision.INT8], OPTIONS, ORT, None, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.runtime
def test_a_wrong_weight_is_found_and_its_operator_named(
    calibrated: dict[Precision, Student],
    samples: NDArray[Any],
    this_computer: DeviceSession,
    path: Path,
    tmp_path: Path,
) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "blocks.1.conv2.weight/int")
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
    job = Job(artefact=Artefact.of(path), backend=ORT)
    report = check_parity(this_computer, job, calibrated[Precision.INT8], samples, OPTIONS, tmp_path)
    assert not report.holds
    assert report.largest > report.allowed
    assert "leaves the student at `blocks.1.conv2:conv`" in report.detail


def _negated(student: Student, weight: str) -> Student:
    module = copy.deepcopy(student.module)
    with torch.no_grad():
        module.get_parameter(weight).neg_()
    return student.but(module=module)


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("weight", "named", "precision", "batch"),
    [
        ("blocks.1.conv2.weight", "`blocks.1.conv2:conv`", Precision.FLOAT32, 1),
        ("blocks.1.conv2.weight", "`blocks.1.conv2:conv`", Precision.INT8, 3),
        ("head.weight", "`head:linear`", Precision.FLOAT32, 1),  # the answer, by the caller's name
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime/cpu", "litert/xnnpack", "openvino/cpu"])
def test_every_format_names_where_it_leaves_the_student(
    calibrated: dict[Precision, Student],
    samples: NDArray[Any],
    this_computer: DeviceSession,
    tmp_path: Path,
    backend: str,
    weight: str,
    named: str,
    precision: Precision,
    batch: int,
) -> None:
    where, student = Backend.model_validate(backend), calibrated[precision]
    options, path = ExportOptions(batch=batch), tmp_path / f"model{formats_of(where)[0].suffix}"
    exporter = plugins.load("edgekd.exporters", formats_of(where)[0].value)()
    artefact = exporter.export(_negated(student, weight), options, where, None, path)
    job = Job(artefact=artefact, backend=where)
    report = check_parity(this_computer, job, student, samples, options, tmp_path)
    assert not report.holds
    assert f"leaves the student at {named}" in report.detail


@pytest.mark.runtime
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("backend", ["onnxruntime/cpu", "litert/xnnpack", "openvino/cpu"])
def test_a_faithful_file_leaves_the_student_nowhere(
    calibrated: dict[Precision, Student],
    samples: NDArray[Any],
    this_computer: DeviceSession,
    tmp_path: Path,
    backend: str,
    precision: Precision,
) -> None:
    where, here = Backend.model_validate(backend), this_computer.describe()
    student = calibrate(calibrated[Precision.FLOAT32], samples, precision, "minmax", here, where)
    exporter = plugins.load("edgekd.exporters", formats_of(where)[0].value)()
    path = tmp_path / f"model{formats_of(where)[0].suffix}"
    artefact = exporter.export(student, ExportOptions(), where, here, path)
    found = first_divergence(artefact, student, samples[:1], ExportOptions())
    assert found == "every value inside the file is the student's when it runs here: the device's kernels differ"


@pytest.mark.runtime
@pytest.mark.parametrize("backend", ["onnxruntime/cpu", "litert/xnnpack", "openvino/cpu"])
def test_what_quantization_itself_moves_is_no_divergence(
    calibrated: dict[Precision, Student], samples: NDArray[Any], tmp_path: Path, backend: str
) -> None:
    """Encodings of half the range clip what the float student has."""
    student, where = calibrated[Precision.INT8], Backend.model_validate(backend)
    halved = {
        key: encoding.but(scale=tuple(0.5 * scale for scale in encoding.scale))
        for key, encoding in student.annotations.activations.items()
    }
    clipped = student.but(annotations=student.annotations.but(activations=halved))
    floats, integers = (expected_answers(one, samples, ExportOptions()) for one in (_floats(student), clipped))
    assert np.abs(integers - floats).max() > 0.05 * np.abs(floats).max()
    path = tmp_path / f"model{formats_of(where)[0].suffix}"
    exporter = plugins.load("edgekd.exporters", formats_of(where)[0].value)()
    artefact = exporter.export(clipped, ExportOptions(), where, None, path)
    found = first_divergence(artefact, clipped, samples[:1], ExportOptions())
    assert found == "every value inside the file is the student's when it runs here: the device's kernels differ"


def _floats(student: Student) -> Student:
    return student.but(annotations=Annotations())


def _beside(difference: NDArray[np.float32], error: float = 1.0) -> ParityReport:
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((48, 10)).astype(np.float32)
    integers = floats + np.float32(error) * rng.standard_normal((48, 10)).astype(np.float32)
    strict = ParityReport(samples=48, agree=40, largest=9.0, unit="steps", allowed=6.0, holds=False, detail="9 steps")
    report = _beside_quantization(strict, integers, integers + difference, floats)
    assert report.but(holds=False, detail="9 steps") == strict
    return report


def test_more_steps_are_allowed_where_they_are_small_beside_the_quantization_error() -> None:
    spread = np.random.default_rng(1).standard_normal((48, 10)).astype(np.float32)
    assert _beside(0.2 * spread).holds
    assert not _beside(0.3 * spread).holds
    assert "9 steps: 29% of the quantization error" in _beside(0.3 * spread).detail
    assert not _beside(0.2 * spread, error=0.0).holds  # quantization changed nothing
    assert not _beside(np.float32("nan") * spread).holds


@pytest.mark.parametrize(("wrong", "much"), [(np.s_[:, 3], 0.6), (np.s_[7], 1.2)], ids=["a class", "a sample"])
def test_what_is_wrong_in_one_place_is_not_small(wrong: Any, much: float) -> None:
    difference = np.zeros((48, 10), np.float32)
    difference[wrong] = much
    assert not _beside(difference).holds
    assert _beside(difference / 2).holds


@pytest.mark.runtime
@pytest.mark.parametrize("batch", [1, 3])
def test_what_openvinos_fused_code_gets_wrong_is_told_from_a_wrong_file(
    calibrated: dict[Precision, Student], samples: NDArray[Any], tmp_path: Path, batch: int
) -> None:
    """The answers are made up: those of a right file are wrong with the default settings alone."""
    where, student = Backend.model_validate("openvino/cpu"), calibrated[Precision.FLOAT32]
    options, path = ExportOptions(batch=batch), tmp_path / "model.xml"
    artefact = plugins.load("edgekd.exporters", "openvino")().export(student, options, where, None, path)
    wrong = np.zeros((len(samples), 10), np.float32)
    report = compared(Job(artefact=artefact, backend=where), student, samples, options, wrong)
    assert not report.holds
    assert "with SNIPPETS_MODE=DISABLE it holds here" in report.detail


@pytest.mark.runtime
def test_a_file_that_wont_run_is_said_to_be_one(
    calibrated: dict[Precision, Student], samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    job = Job(artefact=Artefact.of(tmp_path / "model.onnx"), backend=ORT)
    with pytest.raises(ConfigurationError, match=r"model\.onnx doesn't run in onnxruntime/cpu"):
        check_parity(this_computer, job, calibrated[Precision.INT8], samples, OPTIONS, tmp_path)


@pytest.mark.runtime
def test_the_score_is_the_tasks_over_the_files_answers(
    calibrated: dict[Precision, Student],
    samples: NDArray[Any],
    this_computer: DeviceSession,
    path: Path,
    tmp_path: Path,
) -> None:
    student = calibrated[Precision.INT8]
    labels = expected_answers(student, samples, OPTIONS).argmax(axis=1).astype(np.int64)
    labels[:6] = (labels[:6] + 1) % 10

    class Labelled:
        spec: TaskSpec = student.task

        def split(self, name: SplitName) -> Split:
            return Split(name, samples, labels, "0" * 64)

        def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
            return top1(outputs, labels)

    job = Job(artefact=Artefact.of(path), backend=ORT)
    for split in ("validation", Labelled().split("test")):
        score = score_artefact(this_computer, job, student, Labelled(), split, OPTIONS, tmp_path)
        assert (score.value, score.samples) == (0.75, 24)


@pytest.mark.slow
def test_a_changed_answer_counts_unless_it_was_a_tie(calibrated: dict[Precision, Student]) -> None:
    student = calibrated[Precision.FLOAT32]
    expected = np.tile(np.array([[1.0, 0.9999, 0.0]], np.float32), (4, 1))
    tie = expected.copy()
    tie[0, 1] = 1.0002
    report = _compare(student, expected, tie)
    assert (report.agree, report.samples, report.holds) == (3, 4, True)
    wrong = expected.copy()
    wrong[0] = [0.0, 1.0, 0.0]
    report = _compare(student, expected, wrong)
    assert not report.holds
    assert report.largest == pytest.approx(1.0)
    assert "3 of 4 answers agree" in report.detail


def test_an_answer_that_is_no_number_fails(calibrated: dict[Precision, Student]) -> None:
    expected = np.ones((2, 3), np.float32)
    found = expected.copy()
    found[1, 2] = np.nan
    assert not _compare(calibrated[Precision.FLOAT32], expected, found).holds
