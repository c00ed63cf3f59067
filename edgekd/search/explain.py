"""What each loss did in the chosen finalist's training, and how its student follows the teacher."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.distill.following import followed
from edgekd.distill.predict import predict
from edgekd.project import Project
from edgekd.store.records import ExplanationRecord, FinalistRecord, Following, TermShare
from edgekd.store.run import Run
from edgekd.students.student import load_student

__all__ = ["explain"]

_AT_ONCE = 256


def explain(project: Project, run: Run) -> ExplanationRecord | None:
    """Of the chosen finalist, else of the first; None where nothing was trained. The record is written to the run."""
    outcome = run.outcome()
    finalists = [finalist for finalist in run.finalists() if finalist.student is not None]
    chosen = [f for f in finalists if outcome is not None and f.rank == outcome.chosen] or finalists
    if not chosen:
        return None
    record = ExplanationRecord(
        finalist=chosen[0].rank, terms=_terms(chosen[0]), following=_following(project, run, chosen[0])
    )
    run.write(record)
    return record


def _terms(finalist: FinalistRecord) -> tuple[TermShare, ...]:
    told = [point.shares for point in finalist.curve if point.shares]
    if not told:
        return ()
    first, last = told[0], told[-1]
    names = sorted({*first, *last}, key=lambda name: -last.get(name, 0.0))
    return tuple(TermShare(name=name, first=first.get(name, 0.0), last=last.get(name, 0.0)) for name in names)


def _following(project: Project, run: Run, finalist: FinalistRecord) -> Following | None:
    split = project.task.split("validation")
    if project.teacher is None or not len(split) or finalist.student is None:
        return None
    student = load_student(run.students / finalist.student)
    answers = []
    for start in range(0, len(split), _AT_ONCE):
        batch = torch.from_numpy(np.array(split.inputs[start : start + _AT_ONCE])).float()
        answers.append(project.teacher.logits(batch).numpy())
    own = predict(student.module, split.inputs, project.task.spec)
    return followed(own, np.concatenate(answers), split.labels, project.task.spec.head.labels)
