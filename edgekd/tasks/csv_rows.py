"""Rows of a CSV file whose first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekd.errors import ConfigurationError, Place

__all__ = ["csv_rows"]


def csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by the columns' names in lower case, with their lines; what is missing at a row's end is empty.

    Raises ConfigurationError on what is no CSV file, or lacks one of the columns ``needed``.
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
