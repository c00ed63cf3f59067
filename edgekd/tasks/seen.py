"""What there is in data that a person points to: as much as it takes to begin a project with sensible sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, Place, UsageError
from edgekd.tasks.decoding import picture_bytes, size_of
from edgekd.tasks.image_classification import ImageClassification
from edgekd.tasks.image_csv import ImageCsv
from edgekd.tasks.image_folder import ImageFolder
from edgekd.tasks.labelled_pictures import LabelledPictures

__all__ = ["Seen", "look_at"]

_LOOKED_AT = 200  # headers of pictures: enough to tell how large most of them are
_SIDES = (32, 48, 64, 96)
_FEW = 5000  # pictures up to which 96 pixels can be trained in a short time


@dataclass(frozen=True)
class Seen:
    """Data, and the options of the task that reads it."""

    task: Mapping[str, Any]
    words: str  # what it is, for a person
    train: int
    classes: int  # 0: labels that are no classes of the whole image
    commonest: float  # the share of the largest class: what guessing it always gets
    side: int  # the shorter one that a student sees
    floats: bool


def look_at(data: Path, folder: Path) -> Seen:
    """A folder of pictures, a list of them (.csv), or arrays (.npz); relative paths are relative to ``folder``.

    Raises UsageError on anything else, and ConfigurationError where it isn't laid out as expected.
    """
    if (folder / data).is_dir():
        return _of_pictures(_made(ImageFolder, folder, {"kind": "image-folder", "root": str(data)}), "root", data)
    if data.suffix.lower() == ".csv":
        return _of_pictures(_made(ImageCsv, folder, {"kind": "image-csv", "file": str(data)}), "file", data)
    if data.suffix.lower() == ".npz":
        return _of_arrays(_made(ImageClassification, folder, {"data": str(data)}), data)
    raise UsageError(
        f"--data {data}: a folder of pictures, a .csv that lists them, or a .npz of arrays is expected",
        "lay pictures out as FOLDER/CLASS/picture.jpg",
    )


def _made(kind: type[Any], folder: Path, options: Mapping[str, str]) -> Any:
    given = {name: value for name, value in options.items() if name != "kind"}
    try:
        return kind.model_validate(given, context={"folder": folder})
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        cause = (first.get("ctx") or {}).get("error")
        if isinstance(cause, ConfigurationError):
            raise cause from None
        raise ConfigurationError.one(str(first["msg"]), place=Place(field="--data")) from None


def _of_pictures(task: LabelledPictures, option: str, data: Path) -> Seen:
    parts = task.listed().parts
    files = [path for part in parts.values() for path, _ in part]
    classes = Counter(name for _, name in parts["train"])
    chosen = files[:: max(1, len(files) // _LOOKED_AT)]
    sizes = [size_of(picture_bytes(path), path) for path in chosen]
    shorter = int(np.median([min(size) for size in sizes]))
    most = _SIDES[-1] if len(files) <= _FEW else _SIDES[-2]
    side = max([each for each in _SIDES if each <= min(shorter, most)], default=shorter)
    if set(sizes) == {(shorter, shorter)} and shorter <= most:
        side = shorter  # as they are
    kind = "image-folder" if option == "root" else "image-csv"
    train = len(parts["train"])
    left = (1 - task.validation) * (1 if "test" in parts else 1 - task.test)
    return Seen(
        task={"kind": kind, option: str(data), "size": side},
        words=f"{len(files):,} pictures of {len(classes)} classes, most about {_told(sizes)}",
        train=round(train * (1 if "validation" in parts and "test" in parts else left)),
        classes=len(classes),
        commonest=max(classes.values()) / train,
        side=side,
        floats=False,
    )


def _of_arrays(task: ImageClassification, data: Path) -> Seen:
    spec, train = task.spec, task.split("train")
    classes = spec.head.classes if spec.plain else 0
    commonest = float(np.bincount(train.labels).max() / len(train)) if classes and len(train) else 0.0
    shape, kind = " x ".join(map(str, spec.input.shape)), spec.input.raw_dtype
    asked = f"{spec.head.classes} {'classes' if classes else spec.head.name}"
    return Seen(
        task={"kind": "image-classification", "data": str(data)},
        words=f"{len(train):,} training samples of {asked}, {kind} {shape} (channels, height, width)",
        train=len(train),
        classes=classes,
        commonest=commonest,
        side=min(spec.input.shape[1:]),
        floats=kind == "float32",
    )


def _told(sizes: Sequence[tuple[int, int]]) -> str:
    height, width = (int(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    return f"{width} x {height}"
