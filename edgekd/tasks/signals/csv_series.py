"""`csv-series`: numeric series from the columns of a CSV file, cut into windows with one class each.

::

    task: {kind: csv-series, file: sensors.csv, values: [ax, ay, az], label: activity, series: recording, length: 128}

A row is a step in time; a raw sample is (columns, length), float32. The header names the columns. The column ``series``
assigns rows to series; without it, each run of rows with one label is a series. All windows of a series go to one
split: they overlap, or are alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from edgekd.code_references import ExistingFile
from edgekd.errors import ConfigurationError
from edgekd.tasks.images.classification import Images
from edgekd.tasks.labelled import CarvedImages, LabelledImages
from edgekd.tasks.labelled_files import PARTS, Part, Share, class_order, parted
from edgekd.tasks.sample_store import Progress
from edgekd.tasks.signals.series_rows import Columns, Series, read_series
from edgekd.tasks.splits import content_keys

__all__ = ["CsvSeries"]


class _Window(NamedTuple):
    """Part of a series with one label."""

    values: NDArray[np.float32]  # (columns, length)
    label: str
    part: Part
    key: int  # of the series


@dataclass(frozen=True)
class _Windows(LabelledImages):
    """Windows of series. ``series`` is each window's hash of its whole series, which keeps its windows together."""

    series: NDArray[np.uint64]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Hashes of the series: windows of one series have the same key."""
        return self.series

    @cached_property
    def own_keys(self) -> NDArray[np.uint64]:
        """Hashes of the windows: calibration, which is a part of training, takes some of each series."""
        return content_keys(self.inputs)

    def take(self, indices: NDArray[np.int64]) -> _Windows:
        """Return some windows; see `LabelledImages.take`."""
        return _Windows(self._inputs_of(indices), self.labels[indices], self.series[indices])


class _Read(NamedTuple):
    """Content of a file, in parts."""

    parts: dict[Part, _Windows]
    names: tuple[str, ...]
    words: str


class CsvSeries(Images):
    """Options of `csv-series`, and those shared with other tasks of labelled samples.

    ``values`` are the columns of a sample's channels, ``label`` that of its class. ``length`` is the number of steps of
    a window, ``step`` the distance between the starts of two (default ``length``: no overlap). A window with several
    labels is left out. Without ``length`` a whole series is a sample. ``split`` is a column of train, validation or
    test; without it, ``test`` and ``validation`` are the shares that are carved out. Each channel is normalised
    separately unless ``per_channel`` is false.
    """

    samples_are: ClassVar[str] = "series"
    what: ClassVar[str] = "series"

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
    _read: _Read | None = PrivateAttr(None)

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
        return self._ready().names

    def prepare(self, progress: Progress, stop: Callable[[], bool]) -> str:
        """Read the file, and describe its content. Raises ConfigurationError."""
        del stop  # a second a million rows
        progress(0, 1, f"reading {self.file.name}")
        words = self._ready().words
        progress(1, 1, "")
        return words

    def all_series(self) -> list[Series]:
        """Return the uncut series. Raises ConfigurationError for invalid lines."""
        return read_series(self.file, Columns(self.values, self.label, self.series, self.split_column))

    def _carve(self) -> CarvedImages:
        parts = self._ready().parts
        return self._parted(parts["train"], parts["validation"], parts["test"])

    def _ready(self) -> _Read:
        if self._read is None:
            self._read = self._cut(self.all_series())
        return self._read

    def _cut(self, found: list[Series]) -> _Read:
        if self.length is None:
            self._require_one_length(found)
        cut = [window for series in found for window in self._windows_of(series)]
        there = {label for series in found for label in series.labels}
        names = self.labels or class_order(there)
        if unknown := sorted(there - set(names)):
            raise ConfigurationError.one(
                f"{self.file} has the class `{unknown[0]}`, which `labels` doesn't name", "name every class"
            )
        if lost := sorted(there - {window.label for window in cut}):
            raise ConfigurationError.one(
                f"{self.file}: of class `{lost[0]}` no series has {self.length} steps with one label",
                "give longer series, or lower `length`",
            )
        numbers = {name: number for number, name in enumerate(names)}
        labels = np.asarray([numbers[window.label] for window in cut], np.int64)
        keys = np.asarray([window.key for window in cut], np.uint64)
        windows = _Windows(np.stack([window.values for window in cut]), labels, keys)
        named = [window.part for window in cut]
        parts = parted(named, keys, labels, self.test, self.validation, str(self.file), "windows")
        content = content_keys(windows.inputs)  # of one series that is like a part of another
        seen = content[np.concatenate([parts["test"], parts["validation"]])]
        parts["train"] = parts["train"][~np.isin(content[parts["train"]], seen)]
        if untaught := sorted(there - {names[label] for label in labels[parts["train"]]}):
            raise ConfigurationError.one(
                f"{self.file}: the class `{untaught[0]}` has no series for training: all windows of a series are in "
                "one split",
                "give it more series: name a column in `series`, or write a column `split`",
            )
        short = sum(len(series.labels) < (self.length or 0) for series in found)
        left = f"; {short:,} shorter than {self.length} steps left out" if short else ""
        words = f"{len(cut):,} windows of {len(names)} classes from {len(found):,} series{left}"
        return _Read({part: windows.take(parts[part]) for part in PARTS}, names, words)

    def _require_one_length(self, found: Sequence[Series]) -> None:
        lengths = {len(series.labels): series.name for series in found}
        if len(lengths) > 1:
            (least, shortest), (most, longest) = min(lengths.items()), max(lengths.items())
            raise ConfigurationError.one(
                f"{self.file}: series `{shortest}` has {least} steps and `{longest}` {most}",
                "write `length`, to cut them into windows",
            )

    def _windows_of(self, series: Series) -> Iterator[_Window]:
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
