"""Recipe runner: runs stages in order; a stage whose key is in the store is not run again.

::

    STORE/KEY/               a finished stage's student
    FOLDER/KEY/              the stage's own: checkpoints while it runs, then curve.jsonl, done.json, pictures

A key covers everything before it, so the run resumes after the last key with a stored student.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgekd.distill.curve import CURVE_FILE, read_curve
from edgekd.distill.generative.picture import PICTURES_FILE
from edgekd.errors import ConfigurationError, Problem
from edgekd.recipes.key import chain, student_digest
from edgekd.records import Digest, Filed
from edgekd.stages import Stage, StageContext, out_of_order
from edgekd.store.atomic import draft_of, replace_folder, write_json
from edgekd.store.records import CurvePoint
from edgekd.students._protocol import Student
from edgekd.students.student import is_whole, load_student, save_student

__all__ = ["Done", "RecipeResult", "check_recipe", "run_recipe"]

_DONE_FILE = "done.json"


class Done(Filed):
    """Record of a finished stage: name, key, and the digest of the student it left in the store."""

    schema_: Literal["edgekd.stage/1"] = Field(default="edgekd.stage/1", alias="schema")
    stage: str
    key: Digest
    student: Digest


@dataclass(frozen=True)
class RecipeResult:
    """The student after the last stage, its folder's name in the store, and the joined curves of all stages."""

    student: Student
    key: Digest
    curve: tuple[CurvePoint, ...]  # epochs counted through all stages


def check_recipe(stages: Sequence[Stage], student: Student, context: StageContext) -> list[Problem]:
    """Return every reason why the recipe can't run, from all its stages, before any training."""
    unordered = [problem for _, problem in out_of_order(stages)]
    return unordered + [problem for stage in stages for problem in stage.check(student, context)]


def run_recipe(stages: Sequence[Stage], student: Student, context: StageContext, student_store: Path) -> RecipeResult:
    """Run the stages that are not done. ``context.folder`` contains all stages' folders.

    Raises ConfigurationError with all problems before any stage runs, and whatever a stage raises; a second call
    resumes where it stopped. Without stages the student itself is stored.
    """
    keys = chain(tuple(stages), student, context)
    # one that is damaged is trained again, from the last that is whole
    start = next((number for number in range(len(keys), 0, -1) if is_whole(student_store / keys[number - 1])), 0)
    if start < len(keys):
        problems = check_recipe(stages, student, context)
        if problems:
            raise ConfigurationError(problems)
    if start:
        student = load_student(student_store / keys[start - 1])
    for number, (stage, key) in enumerate(zip(stages, keys, strict=True)):
        if number >= start:
            # a later stage starts from what an earlier one left, which is no start to be kept
            where = replace(context, folder=context.folder / key, keeps_start=context.keeps_start and number == 0)
            student = _run(stage, key, student, where, student_store / key)
    if not keys:
        keys = (student_digest(student),)
        _store(student, student_store / keys[0])
    return RecipeResult(student, keys[-1], _joined([read_curve(context.folder / key) for key in keys]))


def _run(stage: Stage, key: Digest, student: Student, context: StageContext, goal: Path) -> Student:
    problems = stage.check(student, context)  # once more: an earlier stage may have made a student it refuses
    if problems:
        raise ConfigurationError(problems)
    context.folder.mkdir(parents=True, exist_ok=True)
    result = stage.run(student, context)
    digest = _store(result, goal)
    write_json(context.folder / _DONE_FILE, Done(stage=stage.name, key=key, student=digest))
    for path in context.folder.iterdir():  # checkpoints are of no use any more, and large
        if path.name not in (_DONE_FILE, CURVE_FILE, PICTURES_FILE):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return result


def _store(student: Student, goal: Path) -> Digest:
    """Store the student's folder atomically."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(goal)
    try:
        digest = save_student(student, draft)
        replace_folder(draft, goal)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest


def _joined(curves: Sequence[Sequence[CurvePoint]]) -> tuple[CurvePoint, ...]:
    joined: list[CurvePoint] = []
    for curve in curves:
        offset = joined[-1].epoch + 1 if joined else 0
        joined += [point.but(epoch=point.epoch + offset) for point in curve]
    return tuple(joined)
