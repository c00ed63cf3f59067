"""Frozen records: contents of input files and of the run folder, and values in between.

A record refuses unknown fields, never changes, and has one canonical JSON text, so that equal records have equal
digests on every machine.
"""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

__all__ = [
    "Digest",
    "Extended",
    "Filed",
    "Record",
    "Shown",
    "canonical_json",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "mistakes_under",
]

Digest = str
"""SHA-256, as 64 lower-case hexadecimal digits."""


class Record(BaseModel):
    """Base of every record. Fields with a unit carry it in their name (``latency_us``, ``size_bytes``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def digest(self) -> Digest:
        """Digest of the canonical JSON text of this record."""
        return digest_json(self.model_dump(mode="json"))

    def but(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})


class Extended(Record):
    """Record with fields added later: left out of the JSON while they are empty, so that old digests stay valid."""

    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_empty(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if name not in self.added or value}


class Filed(Record):
    """Record that is a file of its own. Its first field, ``schema_``, is written ``schema`` and names the format."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class Shown(Filed):
    """Answer of a function of `edgekd.api`: shown in Python as the command line prints it."""

    def lines(self) -> list[str]:
        """Format as text lines, one screen."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Format for a notebook."""
        return f"<pre>{html.escape(repr(self))}</pre>"


def mistakes_under(name: str | int, error: ValidationError) -> list[InitErrorDetails]:
    """Errors of one record as those of a part of another, for a validator that raises them all at once."""
    return [_under(name, line) for line in error.errors()]


def _under(name: str | int, line: Any) -> InitErrorDetails:
    kind: Any = line["type"]
    try:  # a known kind keeps its own message, so that a misspelt field is recognised
        PydanticKnownError(kind, line.get("ctx"))
    except KeyError:
        kind = PydanticCustomError(kind, "{reason}", {"reason": line["msg"]})
    return InitErrorDetails(type=kind, loc=(name, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))


def canonical_json(value: Any) -> str:
    """Serialize as JSON with sorted keys and no spare blanks. Raises ValueError on NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> Digest:
    """Digest of a JSON-able value, independent of key order."""
    return digest_bytes(canonical_json(value).encode())


def digest_bytes(data: bytes) -> Digest:
    """SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> Digest:
    """SHA-256 of a file's content, read in chunks. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
