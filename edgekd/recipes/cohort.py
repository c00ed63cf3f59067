"""Parts of stages that train several times: fresh students, validation scores, progress and problems."""

from __future__ import annotations

from collections.abc import Callable

from edgekd import plugins
from edgekd.errors import Problem
from edgekd.events import StageProgress
from edgekd.stages import StageContext
from edgekd.students._protocol import Family, Student
from edgekd.tasks._protocol import Score

__all__ = ["fresh_like", "part_of_progress", "renamed", "scored", "validated"]


def renamed(problem: Problem, stage: str) -> Problem:
    """Return a problem of `distill` as one of a stage that is made of several."""
    return Problem(problem.message.replace("distill:", f"{stage}:", 1), problem.remedy, problem.place)


def part_of_progress(
    context: StageContext, stage: str, number: int, count: int, word: str
) -> Callable[[StageProgress], None]:
    """Return a function that reports the progress of training ``number`` (from 0) of ``count`` as the stage's."""

    def report(at: StageProgress) -> None:
        done, total = number * at.total + at.done, count * at.total
        context.progress(StageProgress(stage, done, total, f"{word}, {at.note}"))

    return report


def fresh_like(student: Student, seed: int) -> Student | None:
    """Return the same arch with new random weights.

    None if the family brings its own weights (a person's model, pruned), or if an earlier stage has changed the
    student's shape.
    """
    from edgekd.students.student import new_student

    kind = plugins.load("edgekd.families", student.family)
    family: Family = kind.model_validate(dict(student.options))  # where it points to code, the paths are absolute
    if family.inherits:
        return None
    fresh = new_student(family, student.arch, student.task, seed)
    return fresh if _shapes(fresh) == _shapes(student) else None


def validated(student: Student, context: StageContext) -> float | None:
    """Return the value of `scored`."""
    score = scored(student, context)
    return None if score is None else score.value


def scored(student: Student, context: StageContext) -> Score | None:
    """Return the validation score in PyTorch; None if there are no validation samples."""
    from edgekd.distill.predict import predict

    validation = context.task.split("validation")
    if not len(validation):
        return None
    return context.task.score(predict(student.module, validation.inputs, student.task), validation.labels)


def _shapes(student: Student) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in student.module.state_dict().items()}
