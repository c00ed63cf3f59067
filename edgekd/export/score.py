"""Accuracy of the exported file itself, in its runtime: the strongest kind of evidence."""

from __future__ import annotations

import math
from pathlib import Path

from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Score, Split, SplitName, Task
from edgekd.tasks.mapped import release

__all__ = ["score_artefact"]

_MOST_AT_ONCE, _BYTES_AT_ONCE = 2000, 64 * 1024**2  # of samples sent to the device in one file, as float32


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
    block = max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // (4 * math.prod(part.inputs.shape[1:]))))
    answers = []
    for start in range(0, len(part), block):
        answers.append(file_answers(session, job, student, part.inputs[start : start + block], options, scratch))
        release()
    return task.score(np.concatenate(answers), part.labels)
