"""Choice of a run's folder: the given one, the unfinished one of the same run, or a new one."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from edgekd.devices._protocol import METER_FIELDS, Fingerprint
from edgekd.errors import ConfigurationError, Place
from edgekd.store.records import RunHeader
from edgekd.store.run import Run

__all__ = ["changed_since", "is_begun", "is_finished", "open_run", "require_place"]

_RUNS = Path("runs")
_BUNDLE = "bundle"


def open_run(header: RunHeader, folder: Path | None = None) -> Run:
    """Begin a run, or resume one; without a ``folder``, the newest below ``runs`` with the same request.

    Raises ConfigurationError where the folder's run has another request and has begun.
    """
    if folder is None:
        begun = _begun_before(header)
        if begun is not None:
            return begun
        folder = _new_folder(header)
    require_place(folder)
    if not is_begun(folder):
        return Run.create(folder, header.but(id=folder.name))
    run = Run.open(folder)
    differ = _differences(run.header, header)
    if differ and not run.has_begun():  # failed before its first step: its project may be corrected
        return run.begin_anew(header.but(id=folder.name))
    if differ:
        raise ConfigurationError.one(
            f"the run in this folder was begun with another {', '.join(_TITLES.get(name, name) for name in differ)}",
            "give another folder with --run, or everything as it was",
            Place(str(folder)),
        )
    return run


def require_place(folder: Path) -> None:
    """Check that a run can be in this folder. Raises ConfigurationError, and PermissionError if it is not writable."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise ConfigurationError.one("is no folder for a run", "give another with --run", Place(str(there)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def is_begun(folder: Path) -> bool:
    """Tell whether this folder holds a run."""
    return (folder / "run.json").is_file()


def is_finished(run: Run) -> bool:
    """Tell whether a run's command has nothing left to do.

    A run that chose a finalist also needs its bundle, and one that was too noisy to decide is measured again.
    """
    outcome = run.outcome()
    if outcome is None:
        return False
    if outcome.undecided:
        return False
    return outcome.exit_code != 0 or outcome.chosen is None or (run.folder / _BUNDLE).is_dir()


_TITLES = {"budget_s": "budget", "teacher_digest": "teacher", "family_digest": "student"}


def _differences(begun: RunHeader, asked: RunHeader) -> list[str]:
    """Differences between a begun run and the request that prevent resuming; for a device, its changed facts."""
    names = ("command", "project", "target", "task", "teacher_digest", "family", "family_digest", "seed", "budget_s")
    differ = [name for name in names if getattr(begun, name) != getattr(asked, name)]
    return [*differ, *changed_since(begun, asked.fingerprint, asked.versions)]


def changed_since(begun: RunHeader, fingerprint: Fingerprint, versions: Mapping[str, str]) -> list[str]:
    """Changes of device and packages since a run's header, which its certificate would misstate."""
    measured = begun.fingerprint
    changed = {
        "device": [
            *measured.changed(fingerprint, *begun.target.backends),
            *(name for name in METER_FIELDS if getattr(measured, name) != getattr(fingerprint, name)),
        ],
        "set of packages": [
            name for name in {**begun.versions, **versions} if begun.versions.get(name) != versions.get(name)
        ],
    }
    return [f"{what} ({', '.join(names)})" for what, names in changed.items() if names]


def _begun_before(header: RunHeader) -> Run | None:
    for path in sorted(_RUNS.glob(f"*-{glob.escape(header.task.name)}*/run.json"), reverse=True):
        try:
            run = Run.open(path.parent)
            if not is_finished(run) and not _differences(run.header, header):
                return run
        except ConfigurationError:  # another version's, or damaged: `edgekd runs` lists it
            continue
    return None


def _new_folder(header: RunHeader) -> Path:
    """Return ``runs/2026-11-24-digits``, with a number where that exists. The day is in local time."""
    day = datetime.fromisoformat(header.created).astimezone()
    base = _RUNS / f"{day:%Y-%m-%d}-{header.task.name}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
