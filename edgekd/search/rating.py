"""Accuracy of the teacher and of the teachers it was trained from: a teacher that mistakes colours or class order fails
silently.

Writes teachers.json; no decision depends on it.
"""

from __future__ import annotations

from edgekd.events import Events
from edgekd.project import Project
from edgekd.store.records import TeacherScore, TeachersRecord
from edgekd.store.run import Run
from edgekd.tasks.score import near_chance
from edgekd.teachers._protocol import Taught, Teacher
from edgekd.teachers.binding import rated

__all__ = ["rate_teachers"]


def rate_teachers(project: Project, run: Run, events: Events) -> TeachersRecord | None:
    """Score the chain of teachers on some validation samples and report it; None where there is no teacher."""
    chain: list[Teacher] = []
    above = project.teacher
    while above is not None:
        chain.insert(0, above)
        above = above.taught_by if isinstance(above, Taught) else None
    if not chain:
        return None
    scores = [(teacher, rated(teacher, project.task)) for teacher in chain]
    for teacher, score in scores:
        if score is None:
            events.line(f"teacher    {teacher.name}")
            continue
        events.line(f"teacher    {teacher.name}: {score.value:.1%} of {score.samples} validation samples")
        labels = project.task.split("validation").labels
        if score.metric == "top1" and (doubt := near_chance(score.value, labels, project.task.spec.head.classes)):
            events.line(f"           {doubt}: check its mean and std (in raw units), and its class order")
        if score.metric == "R2" and score.value < 0:
            events.line("           no better than telling each number's mean: train it longer, or check its units")
    record = TeachersRecord(
        teachers=tuple(
            TeacherScore(
                name=teacher.name,
                identity=teacher.digest(),
                score=score.value if score else None,
                samples=score.samples if score else 0,
            )
            for teacher, score in scores
        )
    )
    run.write(record)
    return record
