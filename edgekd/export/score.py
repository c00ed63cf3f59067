"""Accuracy of the exported file itself, in its runtime: the strongest kind there is."""

from __future__ import annotations

from pathlib import Path

from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Score, Split, SplitName, Task

__all__ = ["score_artefact"]

_AT_ONCE = 2000  # samples sent to the device in one file


def score_artefact(
    session: DeviceSession,
    job: Job,
    student: Student,
    task: Task,
    split: Split | SplitName,
    options: ExportOptions,
    scratch: Path,
) -> Score:
    """Score a file on a split, given as such or by name. Raises ConfigurationError where the file won't run."""
    import numpy as np

    part = task.split(split) if isinstance(split, str) else split
    answers = [
        file_answers(session, job, student, part.inputs[start : start + _AT_ONCE], options, scratch)
        for start in range(0, len(part), _AT_ONCE)
    ]
    return task.score(np.concatenate(answers), part.labels)
