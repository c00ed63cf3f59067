"""CSV reader of series: numeric columns over time with a label in each row; errors name the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, Place, Problem
from edgekd.tasks.class_folders import PART_NAMES
from edgekd.tasks.labelled_files import Part

__all__ = ["Columns", "Series", "is_number", "read_rows", "read_series"]

_NAMED = 20
_MOST = float(np.finfo(np.float32).max)


class Columns(NamedTuple):
    """Columns to read."""

    values: Sequence[str]
    label: str
    series: str | None
    split: str | None

    @property
    def needed(self) -> list[str]:
        """Names of all columns."""
        return [*self.values, self.label, *(name for name in (self.series, self.split) if name)]


class Series(NamedTuple):
    """Consecutive rows in time."""

    name: str
    values: NDArray[np.float32]  # (columns, steps)
    labels: list[str]  # of each step
    part: Part


def read_series(path: Path, columns: Columns) -> list[Series]:
    """Return series in order of their first rows. Without a series column, each run of one label and part is one.

    Raises ConfigurationError naming the invalid lines.
    """
    rows: dict[str, tuple[list[list[float]], list[str], Part]] = {}
    problems, run, before = list[Problem](), 0, ("", "")
    for line, row in read_rows(path, columns.needed):
        label = _text(row, columns.label)
        written = _text(row, columns.split).lower() if columns.split else ""
        run += (label, written) != before
        before = label, written
        name = str(run) if columns.series is None else _text(row, columns.series)
        part = PART_NAMES.get(written or "train")
        values = [_number(row.get(column)) for column in columns.values]
        wrong = next((c for c, value in zip(columns.values, values, strict=True) if not abs(value) <= _MOST), None)
        if None in row:
            message, remedy = "has more fields than the first line", "write decimal points, and a comma between columns"
        elif wrong is not None:
            message, remedy = f"`{wrong}` is `{row.get(wrong) or ''}`", "a finite number is expected"
        elif not label or not name:
            message, remedy = f"`{columns.series if label else columns.label}` is empty", "give both"
        elif part is None:
            message, remedy = f"`{columns.split}` is `{written}`", "train, validation or test"
        elif rows.setdefault(name, ([], [], part))[2] != part:
            message, remedy = f"series `{name}` is in two parts", "all rows of a series belong to one"
        else:
            rows[name][0].append(values)
            rows[name][1].append(label)
            continue
        problems.append(Problem(message, remedy, Place(str(path), line)))
    if problems:
        more = len(problems) - _NAMED
        rest = [Problem(f"{more} more lines are wrong", "", Place(str(path)))] if more > 0 else []
        raise ConfigurationError([*problems[:_NAMED], *rest])
    return [
        Series(name, np.ascontiguousarray(np.asarray(values, np.float32).T), labels, part)
        for name, (values, labels, part) in rows.items()
    ]


def read_rows(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield line number and row by column name. Raises ConfigurationError for a file that is no such table."""
    place = Place(str(path), 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
                raise ConfigurationError.one(f"two columns are called `{twice[0]}`", "give each its own name", place)
            if len(columns) == 1 and ";" in columns[0]:
                raise ConfigurationError.one("columns are separated by `;`", "separate them by commas", place)
            if missing := [name for name in needed if name not in columns]:
                raise ConfigurationError.one(
                    f"there is no column `{missing[0]}`; the columns are {', '.join(columns) or '(none)'}",
                    "name columns of its first line",
                    place,
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError.one(
            f"can't be read as a CSV file: {error}", "write it as UTF-8", Place(str(path))
        ) from error


def is_number(text: str | None) -> bool:
    """Return whether a field is a finite number in float32's range."""
    return abs(_number(text)) <= _MOST


def _text(row: dict[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _number(text: str | None) -> float:
    """Return the number, NaN if it is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
