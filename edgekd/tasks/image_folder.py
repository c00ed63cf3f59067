"""`image-folder`: a folder of pictures for each class.

::

    task: {kind: image-folder, root: pictures, size: 128}

Class folders lie in ``root``, or in its folders ``train``, ``test`` and ``val`` (or ``valid``, ``validation``; upper
case too), with no other folder beside them. What there is no folder for is carved out of the training pictures. A class
may have folders inside. Files that are no pictures by their names, and hidden ones, are counted and passed over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edgekd.errors import ConfigurationError
from edgekd.references import ExistingFolder
from edgekd.tasks.decoding import PICTURE_SUFFIXES
from edgekd.tasks.labelled_pictures import Found, LabelledPictures, Part

__all__ = ["PART_NAMES", "ImageFolder"]

PART_NAMES: Mapping[str, Part] = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""What parts of a data set are called."""


class ImageFolder(LabelledPictures):
    """Options of `image-folder`, and what is shared with other tasks of labelled pictures."""

    root: ExistingFolder

    def _title(self) -> str:
        return self.root.name

    def _origin(self) -> Path:
        return self.root

    def _list(self) -> Found:
        places = self._places()
        parts, ignored = dict[Part, list[tuple[Path, str]]](), len(_others(self.root))
        for part, folder in places.items():
            parts[part], passed = _of_classes(folder)
            ignored += passed if folder == self.root else passed + len(_others(folder))
        known = {name for _, name in parts["train"]}
        for part, files in parts.items():
            if new := sorted({name for _, name in files} - known):
                raise ConfigurationError.one(
                    f"{self.root}: the class `{new[0]}` has pictures for {part}, and none for training",
                    "give it some, or take it out",
                )
        return Found(parts, ignored)

    def _places(self) -> Mapping[Part, Path]:
        """The folder of each part. Raises ConfigurationError where a folder may be a part or a class."""
        inside = _folders(self.root)
        named = [name for name in inside if name.lower() in PART_NAMES]
        whole = [name for name in named if _folders(inside[name])]  # a folder of pictures alone is a class
        if not whole:
            return {"train": self.root}
        if others := [name for name in inside if name not in named]:
            raise ConfigurationError.one(
                f"{self.root}: {', '.join(named)} and `{others[0]}` lie side by side: is `{others[0]}` a class or not?",
                f"give a folder that holds the parts alone, or one that holds classes alone (in `{whole[0]}` are "
                "folders, so it is read as a part)",
            )
        places = {PART_NAMES[name.lower()]: inside[name] for name in named}
        if len(places) < len(named):
            raise ConfigurationError.one(f"{self.root} has two folders for one part: {', '.join(named)}", "leave one")
        if "train" not in places:
            raise ConfigurationError.one(f"{self.root} has {', '.join(named)}, and no folder `train`", "add it")
        return places


def _of_classes(folder: Path) -> tuple[list[tuple[Path, str]], int]:
    """Pictures of the class folders in a folder, and how many other files are there."""
    classes, files, ignored = _folders(folder), list[tuple[Path, str]](), 0
    if len(classes) < 2:
        only = f"one folder, `{next(iter(classes))}`" if classes else "no folders"
        raise ConfigurationError.one(
            f"{folder} has {only}; a folder for each class is expected",
            f"lay pictures out as {folder.name}/CLASS/picture.jpg",
        )
    for name, own in classes.items():
        found = list[Path]()
        for place, inner, names in os.walk(own, onerror=_raised):
            inner[:] = sorted(each for each in inner if not each.startswith("."))
            pictures = [each for each in sorted(names) if _is_picture(each)]
            found.extend(Path(place) / each for each in pictures)
            ignored += len(names) - len(pictures)
        if not found:
            raise ConfigurationError.one(
                f"{own} holds no picture ({', '.join(PICTURE_SUFFIXES)})", "give the class some, or take its folder out"
            )
        files.extend((path, name) for path in found)
    return files, ignored


def _raised(error: OSError) -> None:
    """For `os.walk`, which passes over folders that can't be listed. Raises ConfigurationError."""
    raise ConfigurationError.one(f"{error.filename} can't be listed: {error.strerror}", "check its permissions")


def _folders(folder: Path) -> dict[str, Path]:
    return {each.name: each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")}


def _others(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if not each.is_dir()]


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)
