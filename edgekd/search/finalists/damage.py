"""Damaged students and files in a run folder: detect them and forget the finalists that depend on them.

A finalist is its record, its student and its file. Where a student or a file is damaged or missing, the run goes back
to where refining began: intact parts are found again by key, so only the missing ones are trained or converted.
"""

from __future__ import annotations

from edgekd.artefacts import Artefact
from edgekd.errors import ConfigurationError
from edgekd.store.records import FinalistRecord, OutcomeRecord, RoundRecord, StagesRecord
from edgekd.store.run import Run
from edgekd.students.student import is_whole

__all__ = ["damaged_parts", "forget_damaged_rounds", "forget_finalists"]


def damaged_parts(run: Run) -> tuple[str, ...]:
    """Paths in the run folder of finalists' students and files whose digests do not match their records."""
    found = []
    for finalist in run.finalists():
        if finalist.student is not None and not is_whole(run.students / finalist.student):
            found.append(f"students/{finalist.student}")
        if finalist.artefact is not None and not _is_whole(run.resolve(finalist.artefact)):
            found.append(str(finalist.artefact.path))
    return tuple(dict.fromkeys(found))


def forget_finalists(run: Run) -> None:
    """Remove the records that depend on finalists, the last one first. Raises OSError.

    All are removed, because the time given to each depends on those before it.
    """
    run.remove(OutcomeRecord)
    run.remove(StagesRecord)
    for finalist in reversed(run.finalists()):
        run.remove(FinalistRecord, finalist.rank)


def forget_damaged_rounds(run: Run) -> str:
    """Reset the first iteration whose student is damaged or missing, and forget later ones.

    Returns the student's path in the run folder; empty where all are intact. Raises OSError.
    """
    rounds = run.rounds()
    first = next((r for r in rounds if r.student is not None and not is_whole(run.students / r.student)), None)
    if first is None:
        return ""
    for later in reversed(rounds[rounds.index(first) + 1 :]):
        run.remove(RoundRecord, later.number)
    run.write(first.but(student=None, recovered="", accuracy=None, observations=()))
    return f"students/{first.student}"


def _is_whole(artefact: Artefact) -> bool:
    try:
        return Artefact.of(artefact.path).sha256 == artefact.sha256
    except (ConfigurationError, FileNotFoundError):  # it, or a file of its weights, is gone
        return False
