"""Scoring shared by the accuracy estimates: run some stages, score in PyTorch as integer kernels would compute."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edgekd.compress.quantization.reference import reference_module
from edgekd.distill.predict import predict
from edgekd.evidence import AccuracyKind
from edgekd.ir.plan import Candidate
from edgekd.recipes.runner import run_recipe
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.stages import Stage, StageContext
from edgekd.store.records import Accuracy
from edgekd.students._protocol import Student
from edgekd.students.student import new_student
from edgekd.tasks._protocol import Task

__all__ = ["run_and_score", "score_student", "stage_context"]


def run_and_score(
    candidate: Candidate, stages: Sequence[Stage], context: EstimateContext, kind: AccuracyKind, words: str
) -> Estimate:
    """Run the stages (results kept by key are reused) and score the resulting student."""
    student = new_student(context.family, candidate.arch, context.task.spec, context.seed)
    result = run_recipe(stages, student, stage_context(candidate, context), context.students)
    rates = [point.images_per_s for point in result.curve if point.images_per_s > 0]
    accuracy = score_student(result.student, context.task, kind, words)
    return Estimate(accuracy, statistics.median(rates) if rates else None)


def stage_context(candidate: Candidate | None, context: EstimateContext) -> StageContext:
    """Return the stage context of one candidate, or (None) of a preparation that all candidates share."""
    return StageContext(
        task=context.task,
        teacher=context.teacher,
        device=context.fingerprint,
        backend=candidate.backend if candidate is not None else None,
        folder=context.stages,
        cache=context.cache,
        seed=context.seed,
        progress=context.progress,
        stop=context.stop,
    )


def score_student(student: Student, task: Task, kind: AccuracyKind, words: str) -> Accuracy:
    """Score a student on the validation split, in PyTorch, with its annotations applied."""
    split = task.split("validation")
    score = task.score(predict(reference_module(student), split.inputs, student.task), split.labels)
    return Accuracy(
        value=score.value,
        kind=kind,
        split=split.name,
        samples=score.samples,
        method=f"{words}, {student.annotations.precision.value} in PyTorch",
        parts=score.parts,
        errors=score.errors,
    )
