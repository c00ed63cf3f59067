"""What lies in a run's folder and is no longer what was written there: finalists that rest on it are made again.

A finalist is its record, its student and its file. Where a student or a file is damaged or gone, the run goes back to
where refining began: what is whole is found again by its key, so that only what is missing is trained or converted.
"""

from __future__ import annotations

from edgekd.artefacts import Artefact
from edgekd.errors import ConfigurationError
from edgekd.store.records import FinalistRecord, OutcomeRecord, RoundRecord, StagesRecord
from edgekd.store.run import Run
from edgekd.students.student import is_whole

__all__ = ["damaged_parts", "forget_damaged_rounds", "forget_finalists"]


def damaged_parts(run: Run) -> tuple[str, ...]:
    """Students and files of finalists that are not what their records say, by their place in the run's folder."""
    found = []
    for finalist in run.finalists():
        if finalist.student is not None and not is_whole(run.students / finalist.student):
            found.append(f"students/{finalist.student}")
        if finalist.artefact is not None and not _is_whole(run.resolve(finalist.artefact)):
            found.append(str(finalist.artefact.path))
    return tuple(dict.fromkeys(found))


def forget_finalists(run: Run) -> None:
    """Remove the records that rest on finalists, the last one first. Raises OSError.

    All of them, for how much time each was given depends on those before it.
    """
    run.remove(OutcomeRecord)
    run.remove(StagesRecord)
    for finalist in reversed(run.finalists()):
        run.remove(FinalistRecord, finalist.rank)


def forget_damaged_rounds(run: Run) -> str:
    """Where a round's student is damaged or gone, that round is made again, and later ones are forgotten.

    Returns the student's place in the run's folder; empty where all are whole. Raises OSError.
    """
    rounds = run.rounds()
    first = next((r for r in rounds if r.student is not None and not is_whole(run.students / r.student)), None)
    if first is None:
        return ""
    for later in reversed(rounds[rounds.index(first) + 1 :]):
        run.remove(RoundRecord, later.number)
    run.write(first.but(student=None, recovered="", accuracy=None, readings=()))
    return f"students/{first.student}"


def _is_whole(artefact: Artefact) -> bool:
    try:
        return Artefact.of(artefact.path).sha256 == artefact.sha256
    except (ConfigurationError, FileNotFoundError):  # it, or a file of its weights, is gone
        return False
