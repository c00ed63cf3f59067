"""Students of one arch among themselves: fresh ones, and how each scores on the validation samples."""

from __future__ import annotations

from edgekd import plugins
from edgekd.stages import StageContext
from edgekd.students._protocol import Family, Student

__all__ = ["fresh_like", "validated"]


def fresh_like(student: Student, seed: int) -> Student | None:
    """The same arch with fresh weights.

    None where there are none to be had: the family gives weights of its own (a person's model, pruned), or an earlier
    stage has changed the student's shape.
    """
    from edgekd.students.student import new_student

    kind = plugins.load("edgekd.families", student.family)
    family: Family = kind.model_validate(dict(student.options))  # where it points to code, the paths are absolute
    if family.inherits:
        return None
    fresh = new_student(family, student.arch, student.task, seed)
    return fresh if _shapes(fresh) == _shapes(student) else None


def validated(student: Student, context: StageContext) -> float | None:
    """Its score in PyTorch; None where there are no samples to tell by."""
    from edgekd.distill.predict import predict

    validation = context.task.split("validation")
    if not len(validation):
        return None
    return context.task.score(predict(student.module, validation.inputs, student.task), validation.labels).value


def _shapes(student: Student) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in student.module.state_dict().items()}
