"""Atomic writes: a reader never sees half a file, even when the writer is killed.

Each write goes to a temporary sibling, is flushed to the disk, and is renamed over its goal. A killed writer's
leftovers have a name that `sweep` recognises; sweep only while nobody else can be writing there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.errors import about
from edgekd.records import Record

__all__ = ["draft_of", "replace_folder", "sweep", "write_bytes", "write_json"]

_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.[0-9]+-[0-9a-f]{12}\.(?P<kind>tmp|old)$")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically. A missing folder is created. Raises OSError, and then leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(data)
            with about(path):
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(draft, path)  # noqa: PTH105  # the module's os calls are what the tests break one by one
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_json(path: Path, value: Record | Mapping[str, Any]) -> None:
    """Write a record, or a mapping of JSON values, as readable JSON. Raises ValueError on NaN and infinity, OSError."""
    plain = value.model_dump(mode="json") if isinstance(value, Record) else value
    write_bytes(path, (json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def draft_of(path: Path) -> Path:
    """Fresh name beside ``path`` to prepare its replacement under; `sweep` removes it if its writer dies."""
    return _beside(path, "tmp")


def replace_folder(draft: Path, path: Path) -> None:
    """Replace a folder, or create it, from a finished draft. Both must be on one file system.

    A folder can't be exchanged in one step: for an instant, ``path`` may be missing. If the writer is killed then,
    `sweep` restores the old one. Raises OSError.
    """
    for folder, _, files in os.walk(draft):
        for name in files:
            _flush(Path(folder) / name)
        _flush_folder(Path(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        old = _beside(path, "old")
        os.rename(path, old)  # noqa: PTH104  # see write_bytes
        os.rename(draft, path)  # noqa: PTH104
        _flush_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(draft, path)  # noqa: PTH104
        _flush_folder(path.parent)


def sweep(folder: Path) -> tuple[Path, ...]:
    """Remove leftovers of killed writers anywhere below a folder, and restore folders they had moved aside.

    Returns the paths removed or restored. Raises OSError.
    """
    swept: list[Path] = []
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            match = _LEFTOVER.match(name)
            if match is None:
                continue
            left, goal = Path(base) / name, Path(base) / match["name"]
            if match["kind"] == "old" and not goal.exists():
                left.rename(goal)
            elif left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
            swept.append(left)
        folders[:] = [name for name in folders if not _LEFTOVER.match(name)]
    return tuple(swept)


def _beside(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(6)}.{kind}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # a rename is only as lasting as the folder's own entry
    _flush(folder)
