"""Rows of a CSV file with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekd.errors import ConfigurationError, Place

__all__ = ["csv_rows"]


def csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and row by lower-case column name; missing fields at a row's end are empty.

    Raises ConfigurationError for a file that is not CSV, or lacks one of the columns ``needed``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if not set(needed) <= set(columns):
                header = ",".join(needed)
                raise ConfigurationError.one(
                    f"the columns are {', '.join(columns) or '(none)'}; {' and '.join(needed)} are expected",
                    f"write a first line: {header}  or  {header},split",
                    Place(str(path), 1),
                )
            reader.fieldnames = columns
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError.one(f"is not a CSV file: {error}", "write it as UTF-8", Place(str(path))) from error
