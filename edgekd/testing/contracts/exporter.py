"""Contract of an Exporter:

- ``check`` has nothing against a student and options it can export, and ``export`` then leaves the file it describes;
- a file's answers are the student's, on a real runtime, in each precision it takes and with every kind of batch;
- an integer output without integer logits is refused before anything is written, in words, and ``export`` agrees;
- an int8 student without encodings is refused: exporters apply encodings and invent none;
- the student given is not changed, and exporting it again gives an equal file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.parity import check_parity
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student

__all__ = ["ExporterContract"]


class ExporterContract:
    """Subclass it and override its six fixtures; pytest runs every check on your exporter."""

    @pytest.fixture
    def make_exporter(self) -> Callable[[], Exporter]:
        """A function that makes an exporter."""
        raise NotImplementedError("override the fixture `make_exporter`")

    @pytest.fixture
    def backend(self) -> Backend:
        """Backend that the files are run on."""
        raise NotImplementedError("override the fixture `backend`")

    @pytest.fixture
    def suffix(self) -> str:
        """Suffix of its files: ``.onnx``."""
        raise NotImplementedError("override the fixture `suffix`")

    @pytest.fixture
    def students(self) -> dict[Precision, Student]:
        """The student in each precision the exporter takes, calibrated; its raw values are uint8."""
        raise NotImplementedError("override the fixture `students`")

    @pytest.fixture
    def raw(self) -> NDArray[Any]:
        """A few raw samples (N, C, H, W)."""
        raise NotImplementedError("override the fixture `raw`")

    @pytest.fixture
    def session(self) -> DeviceSession:
        """An open device that has the backend."""
        raise NotImplementedError("override the fixture `session`")

    @pytest.mark.parametrize("precision", list(Precision))
    @pytest.mark.parametrize(
        "outside", [{"input": "float32", "layout": "nchw"}, {"input": "uint8"}], ids=["floats", "bytes"]
    )
    def test_answers_are_the_students(
        self,
        make_exporter: Callable[[], Exporter],
        backend: Backend,
        suffix: str,
        students: dict[Precision, Student],
        raw: NDArray[Any],
        session: DeviceSession,
        tmp_path: Path,
        precision: Precision,
        outside: dict[str, str],
    ) -> None:
        if precision not in students:
            pytest.skip(f"this exporter takes no {precision.value}")
        exporter, student, options = make_exporter(), students[precision], ExportOptions.model_validate(outside)
        device = session.describe()  # 8-bit products saturate on some: a file is made for where it runs
        assert not exporter.check(student, options, backend, device)
        artefact = exporter.export(student, options, backend, device, tmp_path / f"model{suffix}")
        assert artefact == Artefact.of(tmp_path / f"model{suffix}")
        assert artefact.format is exporter.format
        report = check_parity(session, Job(artefact=artefact, backend=backend), student, raw, options, tmp_path)
        assert report.holds, report.detail
        assert report.samples == len(raw)

    @pytest.mark.parametrize(("given", "given_back"), [("uint8", "uint8"), ("int8", "int8")])
    def test_integer_ends_answer_the_same(
        self,
        make_exporter: Callable[[], Exporter],
        backend: Backend,
        suffix: str,
        students: dict[Precision, Student],
        raw: NDArray[Any],
        session: DeviceSession,
        tmp_path: Path,
        given: str,
        given_back: str,
    ) -> None:
        if Precision.INT8 not in students:
            pytest.skip("this exporter takes no int8")
        options = ExportOptions.model_validate({"input": given, "output": given_back})
        student = students[Precision.INT8]
        device = session.describe()
        artefact = make_exporter().export(student, options, backend, device, tmp_path / f"model{suffix}")
        report = check_parity(session, Job(artefact=artefact, backend=backend), student, raw, options, tmp_path)
        assert report.holds, report.detail

    @pytest.mark.parametrize("batch", [3, "dynamic"])
    def test_batches_answer_the_same(
        self,
        make_exporter: Callable[[], Exporter],
        backend: Backend,
        suffix: str,
        students: dict[Precision, Student],
        raw: NDArray[Any],
        session: DeviceSession,
        tmp_path: Path,
        batch: int | str,
    ) -> None:
        options, student = ExportOptions.model_validate({"batch": batch}), students[Precision.FLOAT32]
        artefact = make_exporter().export(student, options, backend, None, tmp_path / f"model{suffix}")
        report = check_parity(session, Job(artefact=artefact, backend=backend), student, raw[:7], options, tmp_path)
        assert report.holds, report.detail
        assert report.samples == 7

    def test_refuses_integers_of_a_float_student(
        self,
        make_exporter: Callable[[], Exporter],
        backend: Backend,
        suffix: str,
        students: dict[Precision, Student],
        tmp_path: Path,
    ) -> None:
        exporter, student = make_exporter(), students[Precision.FLOAT32]
        path = tmp_path / f"model{suffix}"
        for refused, options in (
            (student, ExportOptions(output="int8")),
            (student.but(annotations=Annotations(precision=Precision.INT8)), ExportOptions()),
        ):
            problems = exporter.check(refused, options, backend, None)
            assert problems
            assert all(problem.message and problem.remedy for problem in problems)
            with pytest.raises(ConfigurationError):
                exporter.export(refused, options, backend, None, path)
            assert not path.exists()

    def test_the_student_is_not_changed_and_files_repeat(
        self,
        make_exporter: Callable[[], Exporter],
        backend: Backend,
        suffix: str,
        students: dict[Precision, Student],
        tmp_path: Path,
    ) -> None:
        student = students[Precision.FLOAT32]
        before = {name: tensor.clone() for name, tensor in student.module.state_dict().items()}
        made = [
            make_exporter().export(student, ExportOptions(), backend, None, tmp_path / f"{name}{suffix}")
            for name in ("one", "two")
        ]
        assert made[0].size_bytes == made[1].size_bytes
        assert made[0].sha256 == made[1].sha256
        after = student.module.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
