"""A budget of memory, refused twice: by what is counted, before anything is made, and by a device that has no more."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.journey


def test_what_takes_too_much_by_analysis_is_never_tried(edgekd):
    edgekd.change("project.yaml", "width: [8, 16]", "width: [8, 512, 504]")
    edgekd.change("project.yaml", "stages: 2", "stages: 1")
    edgekd.change("project.yaml", "precision: int8", "precision: float32")
    edgekd.change("target.yaml", "  size: {file: 256 KiB}", "  memory: {model: 16 MiB}")
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    run = edgekd.folder / "run"
    (report,) = json.loads((run / "filters.json").read_text())["filters"]
    assert (report["name"], report["kind"], report["removed"]) == ("memory.model", "analytic", 1)
    assert report["asks"] == "weights and peak activations <= 16 MiB + 1 MiB"


def test_what_takes_too_much_on_a_device_with_less_is_out_of_memory(edgekd):
    edgekd.change("project.yaml", "width: [8, 16]", "width: [8, 512, 504]")
    edgekd.change("project.yaml", "stages: 2", "stages: 1")
    edgekd.change("project.yaml", "precision: int8", "precision: float32")
    edgekd.change("target.yaml", "  size: {file: 256 KiB}\n", "")
    edgekd.change("target.yaml", "device: this-computer", "device: small")
    edgekd.write(
        "devices/small.yaml",
        """\
schema: edgekd.device/1
title: This computer with less memory
connection: {kind: local, limits: {memory: 64 MiB}}
""",
    )
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    run = edgekd.folder / "run"
    assert (
        json.loads((run / "filters.json").read_text())["filters"] == []
    )  # no budget, and so nothing is counted against it
    trials = [json.loads(path.read_text()) for path in sorted(run.glob("trials/*.json"))]
    found = {trial["candidate"]["arch"]["width1"]: trial["outcome"] for trial in trials}
    assert found[512] == "out-of-memory", trials
    assert found[8] == "measured", trials
