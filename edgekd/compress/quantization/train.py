"""Quantization-aware training: a calibrated student is trained with simulated rounding, distilled from its float
version.

By default with a learning rate found by a range test, since networks with folded BatchNorm need very different ones;
the best of the calibrated student and the epochs by validation is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekd.compress.quantization.fake import FakeQuantized
from edgekd.distill.heads.objective import HeadsObjective
from edgekd.distill.loop import train
from edgekd.distill.objective import Objective
from edgekd.distill.predict import validator
from edgekd.distill.stage import Distill
from edgekd.errors import Problem
from edgekd.events import StageProgress
from edgekd.records import digest_json
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.teachers.packing import packing_in
from edgekd.teachers.student import StudentTeacher

__all__ = ["VERSION", "problems_of", "trained"]

VERSION = 3
"""Version of the training, raised when the same options give another result."""


def problems_of(student: Student, options: Distill, context: StageContext) -> Sequence[Problem]:
    """Return why a student can't be trained so; empty if it can."""
    if options.loss.features or options.freeze:
        name = options.loss.features[0][0] if options.loss.features else "freeze"
        message = f"quantize: train: {name} needs the layers of a module, and this training has only its graph"
        return [Problem(message, "use losses on logits, and freeze nothing")]
    if options.balance == "gradnorm" or options.precision == "bfloat16":
        what = "balance: gradnorm" if options.balance == "gradnorm" else "precision: bfloat16"
        return [Problem(f"quantize: train: {what} is not for a training with rounding", "leave it out")]
    return options.check(student, _with_student_teacher(student, context))


def trained(student: Student, calibrated: Student, options: Distill, context: StageContext, name: str) -> Student:
    """Train the weights and scales of ``calibrated``. Resumes from ``context.folder``.

    ``student`` is the float version, the teacher. Progress is reported for the stage ``name``. Raises Interrupted and
    Diverged.
    """
    within, spec = _with_student_teacher(student, context), context.task.spec
    heads = None if spec.plain else HeadsObjective(spec, options.balance, (), packing_in(within.teacher))
    with options.training_data(student, within, recovers=True) as (training_data, losses, plan):
        digest = digest_json(["quantize", VERSION, plan.digest, calibrated.annotations.digest()])
        done = train(
            FakeQuantized(calibrated),
            training_data,
            Objective(losses, heads=heads),
            replace(plan, digest=digest, precisions=("float32",), tests_range=options.learning_rate in (None, "auto")),
            context.folder,
            validate=validator(context.task),
            progress=lambda seen, total, note: context.progress(StageProgress(name, seen, total, note)),
            stop=context.stop,
            late=context.late,
        )
    assert isinstance(done.module, FakeQuantized)
    return done.module.student()


def _with_student_teacher(student: Student, context: StageContext) -> StageContext:
    # its logits are used by this training only
    return replace(context, teacher=StudentTeacher(student, "the student in float"), cache=context.folder / "answers")
