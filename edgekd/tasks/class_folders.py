"""Class folders: a folder of pictures or recordings for each class, possibly in train, test and validation folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.errors import ConfigurationError
from edgekd.tasks.labelled_files import Found, Part

__all__ = ["PART_NAMES", "find_classes", "is_hidden"]

PART_NAMES: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Names of the folders of parts of a data set."""


def find_classes(root: Path, suffixes: Sequence[str], what: str) -> Found:
    """Find the files of each class in ``root``, or in its folders ``train``, ``test`` and ``val`` if they exist.

    ``what`` is the word for the files in messages: ``pictures``. Raises ConfigurationError for another layout.
    """
    places = _places(root)
    parts, ignored = dict[Part, list[tuple[Path, str]]](), len(_others(root))
    for part, folder in places.items():
        parts[part], passed = _of_classes(folder, suffixes, what)
        ignored += passed if folder == root else passed + len(_others(folder))
    known = {name for _, name in parts["train"]}
    for part, files in parts.items():
        if new := sorted({name for _, name in files} - known):
            raise ConfigurationError.one(
                f"{root}: the class `{new[0]}` has {what} for {part}, and none for training",
                "give it some, or take it out",
            )
    return Found(parts, ignored)


def _places(root: Path) -> Mapping[Part, Path]:
    """Return the folder of each part. Raises ConfigurationError if a folder may be a part or a class."""
    inside = _folders(root)
    named = [name for name in inside if name.lower() in PART_NAMES]
    whole = [name for name in named if _folders(inside[name])]  # a folder of pictures alone is a class
    if not whole:
        return {"train": root}
    if others := [name for name in inside if name not in named]:
        raise ConfigurationError.one(
            f"{root}: {', '.join(named)} and `{others[0]}` lie side by side: is `{others[0]}` a class or not?",
            f"give a folder that holds the parts alone, or one that holds classes alone (in `{whole[0]}` are "
            "folders, so it is read as a part)",
        )
    places = {PART_NAMES[name.lower()]: inside[name] for name in named}
    if len(places) < len(named):
        raise ConfigurationError.one(f"{root} has two folders for one part: {', '.join(named)}", "leave one")
    if "train" not in places:
        raise ConfigurationError.one(f"{root} has {', '.join(named)}, and no folder `train`", "add it")
    return places


def _of_classes(folder: Path, suffixes: Sequence[str], what: str) -> tuple[list[tuple[Path, str]], int]:
    """Return the files of the class folders in a folder, and the number of other files."""
    classes, files, ignored = _folders(folder), list[tuple[Path, str]](), 0
    if len(classes) < 2:
        only = f"one folder, `{next(iter(classes))}`" if classes else "no folders"
        raise ConfigurationError.one(
            f"{folder} has {only}; a folder for each class is expected",
            f"lay {what} out as {folder.name}/CLASS/{what[:-1]}{'.jpg' if '.jpg' in suffixes else suffixes[0]}",
        )
    for name, own in classes.items():
        found, seen = list[Path](), set[str]()
        for place, inner, names in os.walk(own, onerror=_raised, followlinks=True):
            if (real := os.path.realpath(place)) in seen:
                inner.clear()
                continue
            seen.add(real)
            inner[:] = sorted(each for each in inner if not is_hidden(each))
            named = [each for each in sorted(names) if _is_of(each, suffixes)]
            found.extend(Path(place) / each for each in named)
            ignored += len(names) - len(named)
        if not found:
            raise ConfigurationError.one(
                f"{own} holds no {what[:-1]} ({', '.join(suffixes)})", "give the class some, or take its folder out"
            )
        files.extend((path, name) for path in found)
    return files, ignored


def _raised(error: OSError) -> None:
    """Raise ConfigurationError; for `os.walk`, which skips folders that can't be listed."""
    raise ConfigurationError.one(f"{error.filename} can't be listed: {error.strerror}", "check its permissions")


def _folders(folder: Path) -> dict[str, Path]:
    return {each.name: each for each in sorted(folder.iterdir()) if each.is_dir() and not is_hidden(each.name)}


def _others(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if not each.is_dir()]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is none of the data: hidden, or what Python writes beside a module."""
    return name.startswith(".") or name == "__pycache__"


def _is_of(name: str, suffixes: Sequence[str]) -> bool:
    return not is_hidden(name) and name.lower().endswith(tuple(suffixes))
