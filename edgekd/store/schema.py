"""Reading a record's file: what can't be read is refused with the file's name and the reason, never guessed.

A run folder may come from a stranger: sizes are bounded, and nothing in a file is executed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from edgekd.errors import ConfigurationError, Place, Problem
from edgekd.records import Filed

__all__ = ["read_record", "schema_of"]

FiledT = TypeVar("FiledT", bound=Filed)

_LARGEST_BYTES = 64 * 1024 * 1024


def schema_of(model: type[Filed]) -> str:
    """The name of the format a record is written in: ``edgekd.trial/1``."""
    return str(model.model_fields["schema_"].default)


def read_record(path: Path, model: type[FiledT]) -> FiledT:
    """Read one file into a record.

    Raises ConfigurationError where it is too large, isn't JSON, has another schema, or doesn't fit; OSError where it
    can't be opened.
    """
    place = Place(str(path))
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise ConfigurationError.one(f"{size} bytes is too large for a record (limit {_LARGEST_BYTES})", place=place)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigurationError.one(
            f"is not JSON: {str(error) or 'nested too deep'}",
            "the file was damaged: restore it, or delete it and resume the run",
            place,
        ) from None
    expected = schema_of(model)
    found = data.get("schema") if isinstance(data, dict) else None
    if found != expected:
        raise ConfigurationError.one(
            f"has schema `{found}` where `{expected}` is expected",
            "it was written by another version of edgekd (read it with that one), or is not a file of a run",
            place,
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(
            [
                Problem(
                    f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}",
                    "the file was changed by hand, or damaged",
                    place,
                )
                for item in error.errors(include_url=False)[:10]
            ]
        ) from None
