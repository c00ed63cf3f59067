"""Recordings and texts: from files to a certified file that takes raw samples or token ids, and runs by itself."""

from __future__ import annotations

import json

import pytest

from tests.journeys.conftest import Shell
from tests.tasks.reviews import reviews, written
from tests.tasks.tones import tone, write_wav

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

RECIPE = """\
target: target.yaml
recipe:
  - distill: {loss: ce, epochs: 20, batch_size: 8, ema: 0, precision: float32}
  - quantize: {precision: int8}
search: {budget: 1 h, trials: 1, finalists: 1, reference_archs: 1, batch: 1, accuracy: {short: {epochs: 1}}}
"""
SOUNDS = """\
schema: edgekd.project/1
task: {kind: audio-folder, root: tones, calibration: 16}
student:
  family: dscnn
  stages: 1
  log_mel: {mels: 8, window: 0.016, hop: 0.016}
  space: {width: 8, depth: 1, stem_stride: [2]}
"""
TEXTS = """\
schema: edgekd.project/1
task: {kind: text-classification, file: reviews.csv, tokens: 16, calibration: 32}
student: {family: transformer, space: {depth: 1, heads: 1, width: 16, mlp_ratio: 2}}
"""


def certified(edgekd: Shell, project: str) -> dict:
    """The certificate of a search with this project, for a target with a floor."""
    edgekd.write("project.yaml", project + RECIPE)
    edgekd.write("target.yaml", (edgekd.folder / "target.yaml").read_text() + "accuracy: {floor: 0.7}\n")
    searched = edgekd("search", "project.yaml", "--run", "run", "--format", "json")
    assert searched.returncode == 0, searched.stdout + searched.stderr
    certificate = json.loads(searched.stdout)["certificate"]
    assert {limit["answer"] for limit in certificate["verdict"]["limits"]} == {"holds"}
    assert certificate["parity"]["agree"] >= certificate["parity"]["samples"] - 1 > 0
    return certificate


def test_recordings_become_a_file_that_takes_raw_samples(edgekd):
    for name, hertz in (("low", 400.0), ("high", 2000.0)):
        for number in range(24):
            write_wav(edgekd.folder / "tones" / name / f"{number}.wav", tone(hertz, 0.1, number))
    certificate = certified(edgekd, SOUNDS)
    assert certificate["task"]["input"]["shape"] == [1, 800]
    assert certificate["candidate"]["plan"]["precision"] == "int8"
    edgekd.begin = [edgekd.begin[0], "run/bundle/example.py"]
    for name, hertz in (("low", 400.0), ("high", 2000.0)):
        path = write_wav(edgekd.folder / f"{name}.wav", tone(hertz, 0.15, 99))
        shown = edgekd(str(path))
        assert (shown.returncode, shown.stdout) == (0, f"class {name}\n"), shown.stderr


def test_texts_become_a_file_with_their_tokenizer(edgekd):
    written(edgekd.folder)
    certificate = certified(edgekd, TEXTS)
    assert {one["name"] for one in certificate["files"]} >= {"model.onnx", "tokenizer.json", "example.py"}
    edgekd.begin = [edgekd.begin[0], "run/bundle/example.py"]
    for text, label in reviews(2, seed=7):
        shown = edgekd(text)
        assert (shown.returncode, shown.stdout) == (0, f"class {label}\n"), shown.stderr
