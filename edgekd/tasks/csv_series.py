"""`csv-series`: numeric series from the columns of a CSV file, cut into windows with a class each.

::

    task: {kind: csv-series, file: sensors.csv, values: [ax, ay, az], label: activity, series: recording, length: 128}

A row is a step in time; a raw sample is (columns, length), float32. The first line names the columns. Rows belong to
the series that the column ``series`` names; without it, each run of rows with one label is a series. All windows of a
series go to one split: they overlap, or are alike.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from edgekd.errors import ConfigurationError, Place, Problem
from edgekd.references import ExistingFile
from edgekd.tasks.class_folders import PART_NAMES
from edgekd.tasks.image_classification import Images
from edgekd.tasks.labelled import CarvedImages, LabelledImages
from edgekd.tasks.labelled_files import PARTS, Part, Share, class_order, parted

__all__ = ["CsvSeries"]

_NAMED = 20


class _Series(NamedTuple):
    """Rows that follow each other in time."""

    name: str
    values: NDArray[np.float32]  # (columns, steps)
    labels: list[str]  # of each step
    part: Part


class _Window(NamedTuple):
    """A part of a series with one label."""

    values: NDArray[np.float32]  # (columns, length)
    label: str
    part: Part
    key: int  # of the series


@dataclass(frozen=True)
class _Windows(LabelledImages):
    """Windows of series. ``series`` is a hash of the whole series of each: what keeps its windows together."""

    series: NDArray[np.uint64]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Of the series: windows of one have the same key."""
        return self.series

    def take(self, indices: NDArray[np.int64]) -> _Windows:
        """As `LabelledImages.take`."""
        return _Windows(self._inputs_of(indices), self.labels[indices], self.series[indices])


class CsvSeries(Images):
    """Options of `csv-series`, and what is shared with other tasks of labelled samples.

    ``values`` are the columns of a sample's channels, ``label`` that of its class. ``length`` is how many steps a
    window has, ``step`` how many lie between the beginnings of two (left out: ``length``, so that none overlap). A
    window with several labels is left out. Without ``length`` a whole series is a sample. ``split`` is a column of
    train, validation or test; without it, ``test`` and ``validation`` are the shares that are carved out. Each channel
    is normalised by itself unless ``per_channel`` is false.
    """

    samples_are: ClassVar[str] = "series"

    file: ExistingFile
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    label: str = "label"
    series: str | None = None
    split_column: str | None = Field(default=None, alias="split")
    length: PositiveInt | None = None
    step: PositiveInt | None = None
    test: Share = 0.2
    per_channel: bool = True
    flip: Literal[False] = False
    _read: tuple[dict[Part, _Windows], tuple[str, ...]] | None = PrivateAttr(None)

    model_config = Images.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [*self.values, self.label, *(name for name in (self.series, self.split_column) if name)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the column `{twice[0]}` is named twice")
        if self.step is not None and self.length is None:
            raise ValueError("`step` needs `length`: without it a whole series is a sample")
        return self

    def _title(self) -> str:
        return self.file.stem

    def _names(self) -> tuple[str, ...]:
        return self._ready()[1]

    def _carve(self) -> CarvedImages:
        read, _ = self._ready()
        return CarvedImages(
            what=self._title(),
            train=read["train"],
            test=lambda: read["test"],
            validation=read["validation"],
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )

    def _ready(self) -> tuple[dict[Part, _Windows], tuple[str, ...]]:
        if self._read is None:
            found = self._all_series()
            if self.length is None:
                self._require_one_length(found)
            cut = [window for series in found for window in self._windows_of(series)]
            if not cut:
                raise ConfigurationError.one(
                    f"{self.file}: no series has {self.length} steps with one label", "lower `length`"
                )
            names = self.labels or class_order({window.label for window in cut})
            if unknown := sorted({window.label for window in cut} - set(names)):
                raise ConfigurationError.one(
                    f"{self.file} has the class `{unknown[0]}`, which `labels` doesn't name", "name every class"
                )
            numbers = {name: number for number, name in enumerate(names)}
            labels = np.asarray([numbers[window.label] for window in cut], np.int64)
            keys = np.asarray([window.key for window in cut], np.uint64)
            windows = _Windows(np.stack([window.values for window in cut]), labels, keys)
            named = [window.part for window in cut]
            parts = parted(named, windows.keys, labels, self.test, self.validation, str(self.file), "windows")
            self._read = {part: windows.take(parts[part]) for part in PARTS}, names
        return self._read

    def lengths(self) -> list[int]:
        """How many steps each series has. Raises ConfigurationError on lines that are wrong."""
        return [len(series.labels) for series in self._all_series()]

    def _require_one_length(self, found: Sequence[_Series]) -> None:
        lengths = {len(series.labels): series.name for series in found}
        if len(lengths) > 1:
            (least, shortest), (most, longest) = min(lengths.items()), max(lengths.items())
            raise ConfigurationError.one(
                f"{self.file}: series `{shortest}` has {least} steps and `{longest}` {most}",
                "write `length`, to cut them into windows",
            )

    def _windows_of(self, series: _Series) -> Iterator[_Window]:
        key = int.from_bytes(hashlib.blake2b(series.values.tobytes(), digest_size=8).digest(), "big")
        steps = len(series.labels)
        length = self.length or steps
        for start in range(0, steps - length + 1, self.step or length):
            labels = set(series.labels[start : start + length])
            if len(labels) == 1:
                yield _Window(series.values[:, start : start + length], labels.pop(), series.part, key)
            elif self.length is None:
                raise ConfigurationError.one(
                    f"{self.file}: series `{series.name}` has several labels", "write `length`, to cut it into windows"
                )

    def _all_series(self) -> list[_Series]:
        """In order of their first rows. Raises ConfigurationError naming the lines that are wrong."""
        rows: dict[str, tuple[list[list[float]], list[str], Part]] = {}
        problems, run, before = list[Problem](), 0, ""
        for line, row in self._rows():
            label = (row.get(self.label) or "").strip()
            run += label != before
            before = label
            name = str(run) if self.series is None else (row.get(self.series) or "").strip()
            part = PART_NAMES.get((row.get(self.split_column or "") or "").strip().lower() or "train")
            values = [_number(row.get(column)) for column in self.values]
            wrong = next((c for c, value in zip(self.values, values, strict=True) if not math.isfinite(value)), None)
            if wrong is not None:
                message, remedy = f"`{wrong}` is `{row.get(wrong) or ''}`", "a finite number is expected"
            elif not label or not name:
                message, remedy = f"`{self.series if label else self.label}` is empty", "give both"
            elif part is None:
                found = row.get(self.split_column or "")
                message, remedy = f"`{self.split_column}` is `{found}`", "train, validation or test"
            elif rows.setdefault(name, ([], [], part))[2] != part:
                message, remedy = f"series `{name}` is in two parts", "all rows of a series belong to one"
            else:
                rows[name][0].append(values)
                rows[name][1].append(label)
                continue
            problems.append(Problem(message, remedy, Place(str(self.file), line)))
        if problems:
            more = len(problems) - _NAMED
            rest = [Problem(f"{more} more lines are wrong", "", Place(str(self.file)))] if more > 0 else []
            raise ConfigurationError([*problems[:_NAMED], *rest])
        return [
            _Series(name, np.ascontiguousarray(np.asarray(values, np.float32).T), labels, part)
            for name, (values, labels, part) in rows.items()
        ]

    def _rows(self) -> Iterator[tuple[int, dict[str, str | None]]]:
        """Rows by the columns' names, with their lines. Raises ConfigurationError on what is no such table."""
        needed = [*self.values, self.label, *(name for name in (self.series, self.split_column) if name)]
        try:
            with self.file.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
                if missing := [name for name in needed if name not in columns]:
                    raise ConfigurationError.one(
                        f"there is no column `{missing[0]}`; the columns are {', '.join(columns) or '(none)'}",
                        "name columns of its first line",
                        Place(str(self.file), 1),
                    )
                for row in reader:
                    yield reader.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError.one(
                f"is not a CSV file: {error}", "write it as UTF-8", Place(str(self.file))
            ) from error


def _number(text: str | None) -> float:
    """NaN where it is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
