"""Inspection of a person's data: facts needed to begin a project with sensible sizes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, Place, UsageError
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.tasks.arrays import Layout
from edgekd.tasks.class_folders import is_hidden
from edgekd.tasks.images.classification import ImageClassification
from edgekd.tasks.images.csv import ImageCsv
from edgekd.tasks.images.decoding import PICTURE_SUFFIXES, picture_bytes, size_of
from edgekd.tasks.images.folder import ImageFolder
from edgekd.tasks.images.labelled_pictures import LabelledPictures
from edgekd.tasks.npz import array_layout, array_names
from edgekd.tasks.signals.audio_folder import AudioFolder
from edgekd.tasks.signals.csv_series import CsvSeries
from edgekd.tasks.signals.series_rows import Columns, is_number, read_rows
from edgekd.tasks.signals.sounds import SOUND_SUFFIXES, header_of
from edgekd.tasks.text_classification import TEXT_SUFFIXES, TextClassification

__all__ = ["Seen", "first_sample", "holds_texts", "look_at", "signals_in"]

_LOOKED_AT = 200  # image headers read: enough for a typical size
_WINDOW, _LEAST_WINDOW = 128, 4  # steps of a window, where series are of several lengths
_NARROW = 8  # times as long as wide: arrays of floats are signals then
_SHORT = 10  # percentile of their lengths: shorter ones are left out
_NAMED = 6  # columns
_LENGTHS = 95  # percentile of recordings' and texts' lengths that becomes the length of all
_PIECES, _MOST_TOKENS = 1.5, 128  # tokens of a word, about, and of a text at the most
_SIDES = (32, 48, 64, 96)
_FEW = 5000  # pictures up to which 96 pixels can be trained in a short time


@dataclass(frozen=True)
class Seen:
    """Facts about data, and the options of the task that reads it."""

    task: Mapping[str, Any]
    words: str  # description for a person
    train: int
    classes: int  # 0: labels that are no classes of the whole image
    commonest: float  # share of the largest class, the accuracy of always guessing it
    side: int  # shorter side of the student's input; length of signals and texts
    floats: bool
    signal: Literal["", "audio", "series", "text"] = ""  # empty: pictures
    rate: int = 0  # of recordings, samples a second


def look_at(data: Path, folder: Path, steps: int | None = None) -> Seen:
    """Inspect a folder of pictures, recordings or texts, a .csv list or numeric columns, or arrays (.npz).

    Relative paths are relative to ``folder``. ``steps`` is the length of windows of series, found from the data if
    None.

    Raises UsageError for anything else, and ConfigurationError for an unexpected layout.
    """
    first = first_sample(folder / data) if (folder / data).is_dir() else ""
    if holds_texts(folder / data):
        return _of_texts("root" if first else "file", folder, data)
    if first in SOUND_SUFFIXES:
        return _of_recordings(_made(AudioFolder, folder, {"root": str(data)}), data)
    if first:
        return _of_pictures(_made(ImageFolder, folder, {"kind": "image-folder", "root": str(data)}), "root", data)
    if (folder / data).is_dir():
        raise ConfigurationError.one(
            f"{data} holds neither pictures nor recordings (.wav), nor texts (.txt) in class folders",
            "lay them out as FOLDER/CLASS/picture.jpg, FOLDER/CLASS/recording.wav",
        )
    if data.suffix.lower() == ".csv" and (columns := _columns_of_series(folder / data)) is not None:
        return _of_series(columns, folder, data, steps)
    if data.suffix.lower() == ".csv":
        return _of_pictures(_made(ImageCsv, folder, {"kind": "image-csv", "file": str(data)}), "file", data)
    if data.suffix.lower() == ".npz":
        return _of_arrays(folder, data)
    raise UsageError(
        f"--data {data}: a folder of pictures, WAV or text files, a .csv or a .npz of arrays is expected",
        "lay pictures out as FOLDER/CLASS/picture.jpg",
    )


def first_sample(folder: Path) -> str:
    """Return the suffix of the first picture or recording in a folder, else of a text in a subfolder; empty if none.

    Raises ConfigurationError if the only recordings are of other formats than WAV.
    """
    passed = set[str]()
    for suffix, inside in _suffixes(folder):
        if suffix in PICTURE_SUFFIXES or suffix in SOUND_SUFFIXES:
            return suffix
        if inside or suffix not in TEXT_SUFFIXES:
            passed.add(suffix)
    if other := passed & _OTHER_SOUNDS:
        raise ConfigurationError.one(
            f"{folder} holds {min(other)} files: of recordings WAV files are read",
            "convert them, for example: ffmpeg -i a.flac -c:a pcm_s16le a.wav",
        )
    return min(passed & set(TEXT_SUFFIXES), default="")


def _suffixes(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the suffix of each file and whether it lies in a subfolder. Links to folders are followed, once."""
    seen = set[str]()
    for place, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        shown = sorted(name for name in names if not is_hidden(name))
        yield from ((Path(name).suffix.lower(), place != str(folder)) for name in shown)


def holds_texts(path: Path) -> bool:
    """Return whether a folder's first sample is a text, or a .csv has the columns `text` and `label`."""
    if path.is_dir():
        return first_sample(path) in TEXT_SUFFIXES
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return {"text", "label"} <= {name.strip().lower() for name in stream.readline().split(",")}


def _of_texts(option: str, folder: Path, data: Path) -> Seen:
    options: dict[str, Any] = {"kind": "text-classification", option: str(data)}
    task: TextClassification = _made(TextClassification, folder, options)
    words = [len(text.split()) for text in task.texts()]
    most = float(np.percentile(words, _LENGTHS))
    options["tokens"] = min(_MOST_TOKENS, 8 * math.ceil(_PIECES * most / 8))
    spec, train, commonest = _looked_through(_made(TextClassification, folder, options))
    return Seen(
        task=options,
        words=f"{len(words):,} texts of {spec.head.classes} classes, most of up to {most:.0f} words",
        train=train,
        classes=spec.head.classes,
        commonest=commonest,
        side=options["tokens"],
        floats=False,
        signal="text",
    )


_OTHER_SOUNDS = frozenset((".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus"))


def _columns_of_series(path: Path) -> Columns | None:
    """Return the columns of a file of series, by their names and the first rows; None if it lists pictures.

    Raises ConfigurationError if there is no label, or if a column of numbers contains something else.
    """
    if not path.is_file():
        return None
    rows = list(islice(read_rows(path), _LOOKED_AT))
    names = list(rows[0][1]) if rows else []
    lower = {name.lower(): name for name in names if name}
    if "path" in lower:
        return None
    label = next((lower[name] for name in _LABELS if name in lower), None)
    series = next((lower[name] for name in _SERIES if name in lower), None)
    if series is not None and len({row[series] for _, row in rows}) == len(rows):
        series = None  # a number of its own for each row
    split = lower.get("split")
    values = [
        name
        for name in names
        if name and name not in (label, split) and name.lower() not in _SERIES and _counts(rows, name)
    ]
    if label is None or not values:
        raise ConfigurationError.one(
            f"the columns are {', '.join(map(str, names)) or '(none)'}: a column `label` and columns of numbers are "
            "expected for series, or path and label for a list of pictures",
            "name the column of classes `label`",
            Place(str(path), 1),
        )
    return Columns(values, label, series, split)


def _counts(rows: Sequence[tuple[int, dict[str, str | None]]], name: str) -> bool:
    """Return whether a column is a signal: numbers that don't merely count the rows."""
    odd = [(line, row[name]) for line, row in rows if not is_number(row[name])]
    if odd and len(odd) <= len(rows) // 2:
        line, text = odd[0]
        raise ConfigurationError.one(f"line {line}: `{name}` is `{text or ''}`, and mostly a number", "write a number")
    numbers = [] if odd else [float(row[name] or 0) for _, row in rows]
    counting = len(numbers) > 1 and all(one < other for one, other in pairwise(numbers))
    return bool(numbers) and not counting and name.lower() not in _TIMES


_LABELS = ("label", "class", "activity")
_SERIES = ("series", "recording", "run", "id")
_TIMES = ("time", "timestamp", "t")


def _of_series(columns: Columns, folder: Path, data: Path, steps: int | None) -> Seen:
    options: dict[str, Any] = {"kind": "csv-series", "file": str(data), **columns._asdict()}
    options = {name: value for name, value in options.items() if value is not None}
    if steps is not None:
        options["length"] = steps
    else:
        options |= _window(_made(CsvSeries, folder, options))
    spec, train, commonest = _looked_through(_made(CsvSeries, folder, options))
    channels, length = spec.input.shape
    named = ", ".join(columns.values[:_NAMED]) + ", ..." * (channels > _NAMED)
    return Seen(
        task=options,
        words=f"{train:,} training windows of {spec.head.classes} classes, columns {named}, {length} steps",
        train=train,
        classes=spec.head.classes,
        commonest=commonest,
        side=length,
        floats=True,
        signal="series",
    )


def _window(task: CsvSeries) -> dict[str, int]:
    """Length and step of windows where series, or runs of one label in them, are of several lengths; else nothing."""
    found = task.all_series()
    runs = [len(list(run)) for series in found for _, run in groupby(series.labels)]
    if len({len(series.labels) for series in found}) == 1 and len(runs) <= len(found):
        return {}
    length = max(_LEAST_WINDOW, min(_WINDOW, int(np.percentile(runs, _SHORT))))
    return {"length": length, "step": max(1, length // 2)}


def _looked_through(task: Task) -> tuple[TaskSpec, int, float]:
    """Return a task's spec, the number of training samples, and the share of the largest class."""
    spec, train = task.spec, task.split("train")
    return spec, len(train), float(np.bincount(train.labels).max() / len(train))


def _of_recordings(task: AudioFolder, data: Path) -> Seen:
    parts = task.listed().parts
    files = [path for part in parts.values() for path, _ in part]
    classes = Counter(name for _, name in parts["train"])
    headers = [header_of(picture_bytes(path), path) for path in files[:: max(1, len(files) // _LOOKED_AT)]]
    rate = headers[0].rate
    seconds = math.ceil(10 * float(np.percentile([header.samples for header in headers], _LENGTHS)) / rate) / 10
    train = len(parts["train"])
    left = (1 - task.validation) * (1 if "test" in parts else 1 - task.test)
    return Seen(
        task={"kind": "audio-folder", "root": str(data), "seconds": seconds},
        words=f"{len(files):,} recordings of {len(classes)} classes, {rate} samples a second",
        train=round(train * (1 if "validation" in parts and "test" in parts else left)),
        classes=len(classes),
        commonest=max(classes.values()) / train,
        side=round(seconds * rate),
        floats=True,
        signal="audio",
        rate=rate,
    )


def _made(kind: type[Any], folder: Path, options: Mapping[str, Any]) -> Any:
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
        words=f"{len(files):,} pictures of {len(classes)} classes, most about {_typical_size(sizes)}",
        train=round(train * (1 if "validation" in parts and "test" in parts else left)),
        classes=len(classes),
        commonest=max(classes.values()) / train,
        side=side,
        floats=False,
    )


def _of_arrays(folder: Path, data: Path) -> Seen:
    options = {"data": str(data)}
    _made(ImageClassification, folder, options)  # it has the arrays
    layout = signals_in(folder / data)
    options |= {"layout": layout} if layout else {}
    task: ImageClassification = _made(ImageClassification, folder, options)
    spec, train = task.spec, task.split("train")
    classes = spec.head.classes if spec.plain else 0
    commonest = float(np.bincount(train.labels).max() / len(train)) if classes and len(train) else 0.0
    shape, kind = " x ".join(map(str, spec.input.shape)), spec.input.raw_dtype
    axes = "channels, time" if layout else "channels, height, width"
    asked = f"{spec.head.classes} {'classes' if classes else spec.head.name}"
    return Seen(
        task={"kind": "image-classification", **options},
        words=f"{len(train):,} training samples of {asked}, {kind} {shape} ({axes})",
        train=len(train),
        classes=classes,
        commonest=commonest,
        side=min(spec.input.shape[1:]),
        floats=kind == "float32",
        signal="series" if layout else "",
    )


def signals_in(path: Path) -> Layout | None:
    """Return the layout of a file's arrays (N, T), (N, C, T) or (N, T, C) of signals; None if they hold images.

    Arrays (N, H, W) are images if they are uint8, or if no side is `_NARROW` times the other.
    """
    name = next((name for name in ("x_train", "x_validation") if name in array_names(path)), None)
    if name is None:
        return None
    dtype, shape = array_layout(path, name)
    if dtype.kind != "f" or len(shape) not in (2, 3):
        return None
    if len(shape) == 2 or shape[2] >= _NARROW * shape[1]:
        return "nct"
    return "ntc" if shape[1] >= _NARROW * shape[2] else None


def _typical_size(sizes: Sequence[tuple[int, int]]) -> str:
    height, width = (int(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    return f"{width} x {height}"
