"""Ctrl-C: exit 130, how to go on is said, and the same command finishes what was begun, doing nothing twice."""

from __future__ import annotations

import hashlib

import pytest

pytestmark = pytest.mark.journey

SEARCH = ("search", "project.yaml", "--run", "run")


def finished(run):
    """Digest and time of writing of what was finished."""
    kept = [
        *run.glob("*.json"),
        *run.glob("reference-archs/*.json"),
        *run.glob("trials/*.json"),
        *run.glob("students/*/*"),
    ]
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in kept}


def test_ctrl_c_once_then_twice_then_to_the_end(edgekd):
    run = edgekd.folder / "run"
    code, said = edgekd.interrupted("distill", 1, *SEARCH)
    assert code == 130, said
    assert "stopping after the current write" in said
    assert "the same command" in said
    assert "Traceback" not in said
    before = finished(run)
    assert run / "reference-archs" / "00.json" in before

    code, said = edgekd.interrupted("searching", 2, *SEARCH)
    assert code == 130, said
    assert "goes on from there" in said
    assert "Traceback" not in said
    assert {path: finished(run).get(path) for path in before} == before

    done = edgekd(*SEARCH)
    assert done.returncode == 0, done.stderr
    after = finished(run)
    assert {path: after.get(path) for path in before} == before
    assert len(list(run.glob("trials/*.json"))) == 2
    assert edgekd("search", "--replay", "run").returncode == 0
