"""From a project file to a bundle that another process checks and runs."""

from __future__ import annotations

import json
import shutil

import pytest

from edgekd.export.integer import float_operators
from edgekd.export.metadata import read_facts

pytestmark = pytest.mark.journey


def test_from_digits_to_a_bundle_that_runs(edgekd):
    edgekd.change("project.yaml", "search: {", "export: {formats: [tflite]}\nsearch: {")
    edgekd.change("project.yaml", "precision: int8", "precision: int8, keep_float: [head]")
    searched = edgekd("search", "project.yaml", "--run", "run", "--format", "json")
    assert searched.returncode == 0, searched.stderr
    assert searched.stderr.splitlines()[0].startswith("data       ")
    answer = json.loads(searched.stdout)
    assert answer["schema"] == "edgekd.answer/1"
    assert answer["certificate"]["in_float"] == "linear 1"
    assert answer["certificate"]["load_average"] >= 0
    assert "| computed in float | linear 1 |" in (edgekd.folder / "run" / "bundle" / "README.md").read_text()
    assert answer["outcome"]["exit_code"] == 0
    assert {limit["answer"] for limit in answer["certificate"]["verdict"]["limits"]} == {"holds"}

    verified = edgekd("verify", "run/bundle")
    assert verified.returncode == 0, verified.stdout
    digest, *checked = verified.stdout.splitlines()
    assert digest.split()[1] == answer["bundle_sha256"]
    assert [line.split()[-1] for line in checked[:2]] == ["holds", "holds"]

    bundle = edgekd.folder / "run" / "bundle"
    (other,) = answer["certificate"]["others"]
    assert (other["format"], other["backend"], other["detail"]) == ("tflite", "litert/xnnpack", "")
    assert other["parity"]["agree"] >= other["parity"]["samples"] - 1 > 0  # an answer at a tie may fall either way
    assert read_facts(bundle / "model.tflite")["task"] == "digits"
    assert read_facts(bundle / "model.onnx")["precision"] == "int8"
    assert [name.split()[0] for name in float_operators(bundle / "model.onnx")].count("Gemm") == 1
    assert [name.split()[0] for name in float_operators(bundle / "model.tflite")].count("FULLY_CONNECTED") == 1

    again = edgekd("search", "project.yaml", "--run", "run")
    assert "note       int8 computes in float: linear 1" in again.stdout
    replayed = edgekd("search", "--replay", "run")
    assert replayed.returncode == 0, replayed.stdout

    for _ in range(2):  # the second takes the place of the first
        exported = edgekd("export", "run", "--output", "ship")
        assert exported.returncode == 0, exported.stderr
        assert sorted(p.name for p in (edgekd.folder / "ship").iterdir()) == sorted(p.name for p in bundle.iterdir())
    (edgekd.folder / "ship" / "app.py").write_text("# a person's own")
    assert edgekd("export", "run", "--output", "ship").returncode == 2
    assert (edgekd.folder / "ship" / "app.py").is_file()

    (bundle / "preprocess.json").write_text((bundle / "preprocess.json").read_text() + " ")
    assert edgekd("verify", "run/bundle").returncode == 7

    listed = edgekd("runs", ".")
    assert listed.returncode == 0, listed.stderr
    assert "digits -> target" in listed.stdout

    shutil.rmtree(bundle)
    header = json.loads((edgekd.folder / "run" / "run.json").read_text())
    header["versions"]["torch"] = "0.1"
    (edgekd.folder / "run" / "run.json").write_text(json.dumps(header))
    late = edgekd("export", "run")
    assert late.returncode == 3
    assert "another set of packages (torch)" in late.stderr


def test_nobody_meets_the_target(edgekd):
    edgekd.change("target.yaml", "100 ms", "1 us")
    searched = edgekd("search", "project.yaml", "--run", "run")
    assert searched.returncode == 5, searched.stderr
    lines = searched.stdout.splitlines()
    assert lines[0] == "no candidate meets target"
    nearest = lines[lines.index("nearest:") + 1]
    assert "resnet" in nearest
    assert "latency.p95 ~+" in nearest  # what it misses by, as far as a trial can tell
    assert "size.file ok" in nearest
    assert any(line.startswith("what would help: latency.p95 <= ") for line in lines)
    assert any(line.startswith("latency floor of this space on this device") for line in lines)
    assert not (edgekd.folder / "run" / "bundle").exists()
    asked_again = edgekd("search", "project.yaml", "--run", "run")
    assert (asked_again.returncode, asked_again.stdout) == (5, searched.stdout)
