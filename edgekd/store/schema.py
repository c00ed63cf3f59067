"""Reading of records: a file that can't be read is refused with its name and the reason, never guessed.

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

_AGAIN = "restore it, or delete it and run the same command again"
_BUNDLE = "write the bundle again: edgekd export RUN"
_PROFILE = "delete it, and measure again: edgekd profile"
_REMEDIES = {
    "edgekd.run": "restore it, or begin again in another folder; what is left here can't go on without it",
    "edgekd.certificate": _BUNDLE,
    "edgekd.preprocess": _BUNDLE,
    "edgekd.latency-table": f"{_PROFILE}; or export it again where it comes from",
    "edgekd.profile-deployment": _PROFILE,
    "edgekd.profile-memory": _PROFILE,
    "edgekd.profile-behaviour": _PROFILE,
    "edgekd.profile-again": _PROFILE,
}
"""Remedy for a damaged file, by its schema's name."""

_LARGEST_BYTES = 64 * 1024 * 1024


def schema_of(model: type[Filed]) -> str:
    """Name of a record's schema: ``edgekd.trial/1``."""
    return str(model.model_fields["schema_"].default)


def read_record(path: Path, model: type[FiledT]) -> FiledT:
    """Read one file into a record.

    Raises ConfigurationError where it is too large, isn't JSON, has another schema, or doesn't fit; OSError where it
    can't be opened.
    """
    place, expected = Place(str(path)), schema_of(model)
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise ConfigurationError.one(f"{size} bytes is too large for a record (limit {_LARGEST_BYTES})", place=place)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigurationError.one(
            f"is not JSON: {str(error) or 'nested too deep'}",
            f"the file was damaged: {_REMEDIES.get(expected.partition('/')[0], _AGAIN)}",
            place,
        ) from None
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
                    f"the file was changed by hand, or damaged: {_REMEDIES.get(expected.partition('/')[0], _AGAIN)}",
                    place,
                )
                for item in error.errors(include_url=False)[:10]
            ]
        ) from None
