"""`image-csv`: a list of pictures and their classes.

::

    task: {kind: image-csv, file: labels.csv, root: pictures, size: 128}

The header names the columns: ``path`` (in ``root``, or beside the list), ``label`` and, optionally, ``split``
(``train``, ``validation`` or ``test``; empty means ``train``). Missing splits are carved out of the training pictures.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.code_references import ExistingFile, ExistingFolder
from edgekd.errors import ConfigurationError, Place, Problem
from edgekd.tasks.class_folders import PART_NAMES
from edgekd.tasks.csv_rows import csv_rows
from edgekd.tasks.images.labelled_pictures import LabelledPictures
from edgekd.tasks.labelled_files import Found, Part

__all__ = ["ImageCsv"]

_NAMED = 20


class ImageCsv(LabelledPictures):
    """Options of `image-csv`, and those shared with other tasks of labelled pictures."""

    file: ExistingFile
    root: ExistingFolder | None = None

    def _title(self) -> str:
        return self.file.stem

    def _origin(self) -> Path:
        return self.file

    def _list(self) -> Found:
        parts, seen, problems = dict[Part, list[tuple[Path, str]]](), dict[Path, int](), list[Problem]()
        folder = self.root or self.file.parent
        for line, row in csv_rows(self.file, ("path", "label")):
            path, label, split = (row.get(column, "").strip() for column in ("path", "label", "split"))
            whole = folder / path
            part = PART_NAMES.get(split.lower() or "train")
            if not path or not label:
                message, remedy = f"`{'path' if label else 'label'}` is empty", "give both"
            elif part is None:
                message, remedy = f"split is `{split}`", "train, validation or test"
            elif whole in seen:
                message, remedy = f"{path} is on line {seen[whole]} already", "give each picture once"
            elif not whole.is_file():
                message, remedy = f"no such file: {whole}", "paths are in `root`, or beside the list"
            else:
                seen[whole] = line
                parts.setdefault(part, []).append((whole, label))
                continue
            problems.append(Problem(message, remedy, Place(str(self.file), line)))
        if not problems and len({name for _, name in parts.get("train", ())}) < 2:
            raise ConfigurationError.one("two classes with training pictures are needed", place=Place(str(self.file)))
        known = {name for _, name in parts.get("train", ())}
        for part, files in parts.items():
            if not problems and (new := sorted({name for _, name in files} - known)):
                message = f"the class `{new[0]}` has pictures for {part}, and none for training"
                raise ConfigurationError.one(message, "give it some, or take it out", Place(str(self.file)))
        if problems:
            more = len(problems) - _NAMED
            rest = [Problem(f"{more} more lines are wrong", "", Place(str(self.file)))] if more > 0 else []
            raise ConfigurationError([*problems[:_NAMED], *rest])
        return Found(parts, 0)
