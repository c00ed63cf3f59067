"""Promises of every stage; subclass `StageContract` and override ``life``.

- it has a name, and finds no problem where it can run
- its key is a digest, repeats, and depends on what goes in and on its options
- ``run`` returns a student for the same task, leaves the given one as it was, and repeats itself bit by bit
- what it makes can be saved and read back
- asked to stop, it raises Interrupted or finishes; run again, it ends as if it had never been stopped
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.distill.predict import predict
from edgekd.errors import Interrupted
from edgekd.records import digest_json
from edgekd.stages import Stage, StageContext
from edgekd.students._protocol import Student
from edgekd.students.student import load_student, save_student

__all__ = ["StageContract", "StageLife"]


@dataclass(frozen=True)
class StageLife:
    """A stage, another with other options, a student it can work on, and what it may use. Small: it runs many times."""

    stage: Stage
    other: Stage
    student: Student
    context: Callable[[Path], StageContext]  # with ``folder`` and ``cache`` under a given folder


class StageContract:
    """Run on a stage by overriding one fixture."""

    @pytest.fixture
    def life(self) -> StageLife:
        """Parts with which the stage is tried."""
        raise NotImplementedError("override the fixture `life`")

    def test_has_a_name_and_no_problem(self, life: StageLife, tmp_path: Path) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9-]*", life.stage.name)
        assert list(life.stage.check(life.student, life.context(tmp_path))) == []

    def test_key_is_of_inputs_and_options(self, life: StageLife) -> None:
        one, two = digest_json("one"), digest_json("two")
        assert re.fullmatch(r"[0-9a-f]{64}", life.stage.key(one))
        assert life.stage.key(one) == life.stage.key(one)
        assert len({life.stage.key(one), life.stage.key(two), life.other.key(one)}) == 3

    def test_run_leaves_its_student_alone_and_repeats(self, life: StageLife, tmp_path: Path) -> None:
        before = _answers(life.student, life.context(tmp_path))
        first = life.stage.run(life.student, life.context(tmp_path / "first"))
        second = life.stage.run(life.student, life.context(tmp_path / "second"))
        assert first.task == life.student.task
        assert np.array_equal(_answers(life.student, life.context(tmp_path)), before)
        assert first.annotations == second.annotations
        assert np.array_equal(_answers(first, life.context(tmp_path)), _answers(second, life.context(tmp_path)))

    def test_result_can_be_saved(self, life: StageLife, tmp_path: Path) -> None:
        result = life.stage.run(life.student, life.context(tmp_path / "run"))
        digest = save_student(result, tmp_path / "saved")
        again = load_student(tmp_path / "saved")
        assert again.annotations == result.annotations
        assert np.array_equal(_answers(again, life.context(tmp_path)), _answers(result, life.context(tmp_path)))
        assert save_student(again, tmp_path / "again") == digest

    @pytest.mark.parametrize("asks", [1, 4])
    def test_stopped_and_run_again(self, life: StageLife, tmp_path: Path, asks: int) -> None:
        whole = life.stage.run(life.student, life.context(tmp_path / "whole"))
        countdown = iter([False] * (asks - 1))
        context = life.context(tmp_path / "stopped")
        try:
            result = life.stage.run(life.student, replace(context, stop=lambda: next(countdown, True)))
        except Interrupted:
            result = life.stage.run(life.student, context)
        assert np.array_equal(_answers(result, context), _answers(whole, context))


def _answers(student: Student, context: StageContext) -> NDArray[np.float32]:
    return predict(student.module, context.task.split("validation").inputs[:16], student.task)
