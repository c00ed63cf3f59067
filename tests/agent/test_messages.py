"""Messages: bounded, typed, and late ones noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgekd.agent import messages
from edgekd.agent.messages import BadMessage, Closed, JobRequest, Late, LineReader, PlanRequest, encode, field
from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.devices.session import _plan


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_lines(pipe: tuple[int, int]) -> None:
    lines = LineReader(pipe[0])
    os.write(pipe[1], b'{"a": 1}\n{"b"')
    assert lines.read(5.0) == {"a": 1}
    os.write(pipe[1], b": 2}\nnonsense\n")
    assert lines.read(5.0) == {"b": 2}
    with pytest.raises(BadMessage, match="nonsense"):
        lines.read(5.0)
    with pytest.raises(Late, match=r"0\.05 s"):
        lines.read(0.05)
    os.close(pipe[1])
    with pytest.raises(Closed):
        lines.read(5.0)


def test_a_line_too_long_is_never_kept(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_LINE_BYTES", 100)
    os.write(pipe[1], b"x" * 300)
    with pytest.raises(BadMessage, match="longer than the 100"):
        LineReader(pipe[0]).read(5.0)
    with pytest.raises(BadMessage, match="more than the 100"):
        encode({"text": "x" * 200})


def test_nan_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"p5_us": float("nan")})


def test_fields_have_types() -> None:
    assert field({"a": 3}, "a", float) == 3.0
    for message, kind in (({"a": True}, int), ({"a": "3"}, int), ({}, str), ({"a": 1}, bool), ({"a": True}, float)):
        with pytest.raises(BadMessage, match="field `a`"):
            field(message, "a", kind)


def test_the_hosts_plan_is_the_agents_plan() -> None:
    plan = MeasurePlan(rounds=3, memory_limit_bytes=5, load=Load(busy=2))
    read = PlanRequest.read(_plan(plan))
    assert (read.rounds, read.memory_limit_bytes, read.busy, read.rate_hz) == (3, 5, 2, 0.0)
    assert set(PlanRequest._fields) == set(_plan(plan))


def test_a_job_needs_all_its_fields() -> None:
    with pytest.raises(BadMessage, match="sha256"):
        JobRequest.read({"runtime": "null", "provider": "none", "path": "/x"})
    whole = {"runtime": "null", "provider": "none", "path": "/x", "sha256": "", "threads": 2, "shapes": {"x": [1, 3]}}
    assert JobRequest.read(whole) == JobRequest("null", "none", "/x", "", 2, {"x": [1, 3]})
    for shapes in ({"x": [0, 3]}, {"x": [True]}, {"x": 3}, {"x": ["3"]}, []):
        with pytest.raises(BadMessage, match="shapes"):
            JobRequest.read({**whole, "shapes": shapes})
