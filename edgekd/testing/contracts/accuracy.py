"""Promises of every accuracy estimate; subclass `AccuracyContract` and override ``life``.

- it has a name and says which kind of accuracy it gives
- it scores the whole validation split, never looks at the test split, and says how it came to its figure
- it repeats itself, in another folder too
- it scores the candidate as it will ship: the precision is in the student it stored last
- asked to stop it raises Interrupted or finishes; asked again, it ends as if it had never been stopped
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgekd.errors import Interrupted
from edgekd.evidence import AccuracyKind
from edgekd.ir.plan import Candidate
from edgekd.search._protocol import AccuracyEstimate, EstimateContext
from edgekd.store.records import Accuracy
from edgekd.students.student import load_student
from edgekd.tasks._protocol import Score, Split, SplitName, Task

__all__ = ["AccuracyContract", "EstimateLife"]


@dataclass(frozen=True)
class EstimateLife:
    """An estimate, a candidate in int8, and what it may use. Small: it runs many times."""

    estimate: AccuracyEstimate
    candidate: Candidate
    context: Callable[[Path], EstimateContext]  # with ``students``, ``stages`` and ``cache`` under a given folder


class AccuracyContract:
    """Run on an estimate by overriding one fixture."""

    @pytest.fixture
    def life(self) -> EstimateLife:
        """Parts with which the estimate is tried."""
        raise NotImplementedError("override the fixture `life`")

    def test_has_a_name_and_a_kind(self, life: EstimateLife) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9-]*", life.estimate.name)
        assert life.estimate.kind in (AccuracyKind.TORCH, AccuracyKind.INHERITED)

    def test_scores_all_of_validation_and_nothing_of_test(self, life: EstimateLife, tmp_path: Path) -> None:
        context = life.context(tmp_path)
        accuracy = _estimated(life, replace(context, task=_Guarded(context.task)))
        assert accuracy.split == "validation"
        assert accuracy.samples == len(context.task.split("validation"))
        assert accuracy.kind is life.estimate.kind
        assert 0.0 <= accuracy.value <= 1.0
        assert accuracy.method

    def test_repeats_itself(self, life: EstimateLife, tmp_path: Path) -> None:
        first = _estimated(life, life.context(tmp_path / "a"))
        assert _estimated(life, life.context(tmp_path / "a")) == first
        assert _estimated(life, life.context(tmp_path / "b")) == first

    def test_scores_what_will_ship(self, life: EstimateLife, tmp_path: Path) -> None:
        context = life.context(tmp_path)
        _estimated(life, context)
        stored = [load_student(folder) for folder in context.students.iterdir()]
        precisions = {student.annotations.precision for student in stored}
        assert life.candidate.plan.precision in precisions

    def test_goes_on_after_a_stop(self, life: EstimateLife, tmp_path: Path) -> None:
        whole = _estimated(life, life.context(tmp_path / "whole"))
        for patience in range(1000):
            left = [patience]

            def stop(left: list[int] = left) -> bool:
                left[0] -= 1
                return left[0] < 0

            try:
                accuracy = _estimated(life, replace(life.context(tmp_path / "stopped"), stop=stop))
            except Interrupted:
                continue
            assert accuracy == whole
            return
        raise AssertionError("it never ended, however late it was asked to stop")


def _estimated(life: EstimateLife, context: EstimateContext) -> Accuracy:
    return life.estimate.estimate(life.candidate, context).accuracy


class _Guarded:
    """A task whose test split is out of reach."""

    def __init__(self, task: Task) -> None:
        self._task, self.spec = task, task.spec

    def split(self, name: SplitName) -> Split:
        assert name != "test", "an estimate looked at the test split"
        return self._task.split(name)

    def score(self, outputs, labels) -> Score:  # type: ignore[no-untyped-def]  # as the Protocol says
        return self._task.score(outputs, labels)
