"""``edgekd profile``: this computer, looked at quickly; what is known is not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey


def test_a_quick_profile_is_measured_once(edgekd, tmp_path):
    edgekd.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    done = edgekd("profile", "this-computer", "--quick", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "4 sections, about" in done.stderr
    first = json.loads(done.stdout)
    assert first["reused"] == []
    assert [arm["precision"] for arm in first["arms"]] == ["float32", "int8"]
    for arm in first["arms"]:
        assert arm["refused"] == ""
        assert arm["peak"]["value"] > 0
        assert 0 < arm["overhead"]["value"] < arm["stairs"][-1]["low_us"]["value"]
    assert first["behaviour"]["threads"][0]["threads"] == 1
    assert (Path(first["folder"]) / "report.html").is_file()

    done = edgekd("profile", "this-computer", "--quick")
    assert done.returncode == 0, done.stderr
    assert "sections" not in done.stderr
    assert "known before: memory" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if first["folder"] not in line) <= 80

    done = edgekd("tables", "list")
    assert done.returncode == 0
    assert "litert/xnnpack int8 . 1 thread . 6 networks" in done.stdout


def test_a_device_that_is_not_there(edgekd):
    done = edgekd("profile", "this-computr")
    assert done.returncode == 3
    assert "this-computer" in done.stderr


def test_a_backend_that_is_not_known(edgekd):
    done = edgekd("profile", "--backend", "litert/xnpack")
    assert done.returncode == 3
    assert "litert/xnnpack" in done.stderr
