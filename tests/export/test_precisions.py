"""A rung added to the ladder is on no runtime, and nothing takes it for another one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd import artefacts, plugins
from edgekd.artefacts import BACKENDS, RUNTIMES, Backend, Format, Precision
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.ladder import problems_with
from edgekd.compress.quantization.reference import reference_module
from edgekd.export._protocol import ExportOptions
from edgekd.export.parity import expected_answers
from edgekd.ir.encoding import Annotations
from edgekd.ir.support import PRECISIONS
from edgekd.students._protocol import Student


@pytest.fixture
def int4() -> Precision:
    """A member of Precision that none of its tables knows."""
    member = str.__new__(Precision, "int4")
    member._name_, member._value_ = "INT4", "int4"
    return member


@pytest.fixture
def student(calibrated: dict[Precision, Student]) -> Student:
    return calibrated[Precision.FLOAT32]


def test_a_new_rung_is_on_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PRECISIONS) == set(RUNTIMES) == {backend.partition("/")[0] for backend in BACKENDS}
    wider: Any = Enum("Precision", {**{p.name: p.value for p in Precision}, "INT4": "int4"}, type=str)  # type: ignore[misc]  # an enum of members known at run time
    monkeypatch.setattr(artefacts, "Precision", wider)
    spec = importlib.util.find_spec("edgekd.ir.support")
    assert spec is not None
    assert spec.loader is not None
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    for runtime, rungs in anew.PRECISIONS.items():
        assert "int4" not in [rung.value for rung in rungs]
        assert [rung.value for rung in rungs] == [rung.value for rung in PRECISIONS[runtime]]


def test_a_runtime_without_the_rung_says_so(int4: Precision, student: Student) -> None:
    problems = problems_with(student, int4, Backend.model_validate("litert/xnnpack"))
    assert [problem.message for problem in problems] == ["litert/xnnpack has no int4 models"]


def _ladder(student: Student, _: Path) -> object:
    return problems_with(student, student.annotations.precision)


def _calibrate(student: Student, _: Path) -> object:
    return calibrate(student, np.zeros((1, *student.task.input.shape), np.uint8), student.annotations.precision)


def _reference(student: Student, _: Path) -> object:
    return reference_module(student)


def _parity(student: Student, _: Path) -> object:
    raw: NDArray[np.uint8] = np.zeros((1, *student.task.input.shape), np.uint8)
    return expected_answers(student, raw, ExportOptions())


def _exporter(backend: str) -> Callable[[Student, Path], object]:
    where = Backend.model_validate(backend)

    def export(student: Student, folder: Path) -> object:
        exporter = plugins.load("edgekd.exporters", where.formats[0].value)()
        path = folder / f"model{where.formats[0].suffix}"
        return exporter.export(student, ExportOptions(), where, None, path)

    return export


@pytest.mark.runtime
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(_ladder, id="ladder"),
        pytest.param(_calibrate, id="calibrate"),
        pytest.param(_reference, id="reference"),
        pytest.param(_parity, id="parity"),
        *(pytest.param(_exporter(backend), id=backend) for backend in BACKENDS),
    ],
)
def test_a_new_rung_is_taken_for_no_other(
    use: Callable[[Student, Path], object],
    int4: Precision,
    student: Student,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if use is _calibrate:  # which asks the ladder first
        monkeypatch.setattr("edgekd.compress.quantization.calibrate.problems_with", lambda *_: [])
    annotations = Annotations.model_construct(precision=int4)
    with pytest.raises(AssertionError, match=r"unreachable.*INT4"):
        use(student.but(annotations=annotations), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_rung_has_its_figures_and_its_words() -> None:
    assert [rung.weight_bytes for rung in Precision] == [4, 2, 1, 1]
    assert [rung.activation_bytes for rung in Precision] == [4, 4, 4, 1]
    assert sorted(Precision, key=lambda rung: rung.fidelity) == list(reversed(Precision))
    for rung in Precision:
        assert all(rung.arithmetic(file_format) for file_format in Format)
