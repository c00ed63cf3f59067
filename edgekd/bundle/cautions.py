"""Cautions: reasons why a model that holds every limit may not be worth shipping."""

from __future__ import annotations

from edgekd.store.certificate import Certificate
from edgekd.store.records import FinalistRecord, TeachersRecord
from edgekd.tasks._protocol import Rows
from edgekd.tasks.score import near_chance

__all__ = ["cautions_of"]

_NEAR_THE_MEAN = 0.1  # of R2, where telling each number's mean has 0
_BELOW_TEACHER = 0.1
_BELOW_OWN = 0.02


def cautions_of(
    certificate: Certificate, finalist: FinalistRecord, teachers: TeachersRecord | None, labels: Rows
) -> tuple[str, ...]:
    """Near chance, far below its teacher, or below the model it was made from; empty where nothing is to be said.

    Scores are compared on one split each: the teacher's on validation, as it was rated. ``labels`` are those of the
    test split.
    """
    found = list[str]()
    scored, task = certificate.accuracy, certificate.task
    if task.plain and task.metric.name == "top1":
        found += filter(None, [near_chance(scored.value, labels, task.head.classes)])
    if task.metric.name == "R2" and scored.value < _NEAR_THE_MEAN:
        found.append(f"hardly better than telling each number's mean: R2 {scored.value:.2f}")
    teacher = teachers.teachers[-1] if teachers is not None and teachers.teachers else None
    if teacher is not None and teacher.score is not None and finalist.accuracy is not None:
        below = teacher.score - finalist.accuracy.value
        if below > _BELOW_TEACHER:
            found.append(
                f"{100 * below:.1f} points below its teacher: {finalist.accuracy.value:.1%} of the validation samples, "
                f"and {teacher.name} {teacher.score:.1%}"
            )
    if certificate.own is not None and certificate.own.value - scored.value > _BELOW_OWN:
        below = certificate.own.value - scored.value
        found.append(f"{100 * below:.1f} points below the model as it came, which scores {certificate.own.value:.1%}")
    return tuple(found)
