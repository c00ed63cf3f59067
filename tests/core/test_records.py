from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from edgekd.records import Filed, Record, canonical_json, digest_file, digest_json


class Point(Record):
    x: int
    y: float = 0.0


class Stored(Filed):
    schema_: Literal["point/1"] = Field(default="point/1", alias="schema")
    point: Point


def test_records_never_change_and_refuse_unknown_fields() -> None:
    point = Point(x=1)
    with pytest.raises(ValidationError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Point.model_validate({"x": 1, "z": 2})
    with pytest.raises(ValidationError):
        Point(x=1, y=float("nan"))


def test_a_changed_copy_is_validated() -> None:
    assert Point(x=1).but(x=2) == Point(x=2)
    with pytest.raises(ValidationError):
        Point(x=1).but(x="many")


def test_equal_records_have_equal_digests_whatever_the_order() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    assert Point(x=1, y=2).digest() == Point.model_validate({"y": 2, "x": 1}).digest()
    assert Point(x=1).digest() != Point(x=2).digest()


def test_canonical_json_has_no_nan() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_a_filed_record_writes_its_schema_and_reads_it_back() -> None:
    text = Stored(point=Point(x=1)).model_dump_json()
    assert text.startswith('{"schema":"point/1"')
    assert Stored.model_validate_json(text).point.x == 1


def test_a_files_digest_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    assert digest_file(path) == hashlib.sha256(b"x" * 300_000).hexdigest()
