"""Cautions: reasons why a model that holds every limit may not be worth shipping."""

from __future__ import annotations

from edgekd.store.certificate import Certificate
from edgekd.store.records import FinalistRecord, TeachersRecord

__all__ = ["cautions_of", "near_chance"]

_NEAR_CHANCE = 1.5  # times what guessing scores, or _ABOVE more where that is less
_ABOVE = 0.1
_BELOW_TEACHER = 0.1
_BELOW_OWN = 0.02


def cautions_of(certificate: Certificate, finalist: FinalistRecord, teachers: TeachersRecord | None) -> tuple[str, ...]:
    """Near chance, far below its teacher, or below the model it was made from; empty where nothing is to be said.

    Scores are compared on one split each: the teacher's on validation, as it was rated.
    """
    found = list[str]()
    scored, task = certificate.accuracy, certificate.task
    if task.plain and task.metric.name == "top1":
        found += near_chance(scored.value, task.head.classes)
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


def near_chance(top1: float, classes: int) -> tuple[str, ...]:
    """Caution on a top-1 accuracy that guessing nearly has; else nothing."""
    chance = 1.0 / classes
    if top1 >= min(_NEAR_CHANCE * chance, chance + _ABOVE):
        return ()
    return (f"hardly better than chance: {top1:.1%}, and guessing scores {chance:.1%}",)
