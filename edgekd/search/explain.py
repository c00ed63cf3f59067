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
    """Stages of a recipe may have losses of their own, so each is told from its first epoch to its last."""
    found: dict[str, list[float]] = {}
    for point in finalist.curve:
        for name, share in point.shares.items():
            found.setdefault(name, []).append(share)
    terms = (TermShare(name=name, first=shares[0], last=shares[-1]) for name, shares in found.items())
    return tuple(sorted(terms, key=lambda term: -term.last))


def _following(project: Project, run: Run, finalist: FinalistRecord) -> Following | None:
    split, spec = project.task.split("validation"), project.task.spec
    if project.teacher is None or not len(split) or finalist.student is None or not spec.plain:
        return None
    student = load_student(run.students / finalist.student)
    answers = []
    for start in range(0, len(split), _AT_ONCE):
        batch = torch.from_numpy(np.array(split.inputs[start : start + _AT_ONCE])).float()
        answers.append(project.teacher.logits(batch).numpy())
    own = predict(student.module, split.inputs, spec)
    return followed(own, np.concatenate(answers), split.labels, spec.head.labels)
