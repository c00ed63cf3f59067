"""Content-addressed artefacts: a model file is measured at ``artefacts/SHA256.suffix`` or nowhere.

A device session may remember where it found a digest, so a file that is deleted and made again (a reference arch that
becomes a trial, a trial that becomes a finalist) must come back to the same place. Only finalists' files outlast a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from edgekd.artefacts import Artefact
from edgekd.records import Digest
from edgekd.store.atomic import write_bytes

__all__ = ["keep_newest", "keep_only", "place"]


def place(artefact: Artefact, folder: Path) -> Artefact:
    """Copy a file, and external weights beside it, to its address in ``folder``. Raises OSError.

    Weights that a model refers to by a name of its own get a folder: another model's may have the same name.
    """
    named = artefact.named(artefact.sha256)
    if any(Path(name).stem != artefact.sha256 for name in named):
        folder = folder / artefact.sha256
    goal = folder / next(iter(named))
    if goal == artefact.path:
        return artefact
    # the model last: one whose weights are missing must not be found. Two backends may share a file: an earlier
    # finalist's must not be torn while it is copied once more
    for name, source in reversed(list(named.items())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, source.read_bytes())
    return artefact.but(path=goal)


def keep_newest(folder: Path, most_bytes: int) -> None:
    """Delete the oldest folders in ``folder``, students of earlier trials, until the rest take at most ``most_bytes``.

    A trial that would have continued from a deleted one trains it again.
    """
    there = folder.iterdir() if folder.is_dir() else ()
    found = sorted((path for path in there if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in found}
    total = sum(sizes.values())
    for path in found[:-1]:
        if total <= most_bytes:
            return
        shutil.rmtree(path)
        total -= sizes[path]


def keep_only(folder: Path, kept: Collection[Digest]) -> None:
    """Delete everything in ``folder`` that does not belong to one of these digests. Raises OSError."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stem in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
