"""Explanation of the chosen finalist: the share of each loss in its training, and its agreement with the teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekd.distill.predict import predict
from edgekd.distill.teacher_agreement import agreement_of, agreement_of_heads, in_batches
from edgekd.project import Project
from edgekd.store.explanation import ExplanationRecord, Following, TermShare
from edgekd.store.records import FinalistRecord
from edgekd.store.run import Run
from edgekd.students.student import load_student
from edgekd.teachers.observed import samples_at_once

__all__ = ["explain"]


def explain(project: Project, run: Run) -> ExplanationRecord | None:
    """Explain the chosen finalist, else the first; None where nothing was trained. The record is written to the run."""
    outcome = run.outcome()
    finalists = [finalist for finalist in run.finalists() if finalist.student is not None]
    chosen = [f for f in finalists if outcome is not None and f.rank == outcome.chosen] or finalists
    if not chosen:
        return None
    following, heads = _following(project, run, chosen[0])
    record = ExplanationRecord(finalist=chosen[0].rank, terms=_terms(chosen[0]), following=following, heads=heads)
    run.write(record)
    return record


def _terms(finalist: FinalistRecord) -> tuple[TermShare, ...]:
    """Shares of the losses from first to last epoch of each stage: stages may have losses of their own."""
    found: dict[str, list[float]] = {}
    for point in finalist.curve:
        for name, share in point.shares.items():
            found.setdefault(name, []).append(share)
    terms = (TermShare(name=name, first=shares[0], last=shares[-1]) for name, shares in found.items())
    return tuple(sorted(terms, key=lambda term: -term.last))


def _following(
    project: Project, run: Run, finalist: FinalistRecord
) -> tuple[Following | None, Mapping[str, Following]]:
    """Agreement with the teacher: of the only classification head, or of several heads by name."""
    split, spec = project.task.split("validation"), project.task.spec
    if project.teacher is None or not len(split) or finalist.student is None:
        return None, {}
    student, teacher = load_student(run.students / finalist.student), project.teacher
    if not spec.plain:
        return None, agreement_of_heads(student.module, teacher, split, spec)
    batches = in_batches(split, samples_at_once(teacher, spec.input))
    said = np.concatenate([teacher.logits(batch).numpy() for batch in batches])
    return agreement_of(predict(student.module, split.inputs, spec), said, split.labels, spec.head.labels), {}
