"""A project that brings a teacher and no image to learn from: the student is certified all the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.tasks.digits import Digits

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

AXES = (("x", "inputs"), ("y", "labels"))
MODEL = Path(__file__).parents[2] / "examples" / "own_model"


def test_from_a_teacher_alone_to_a_bundle(edgekd):
    digits = Digits()
    parts = {name: digits.split(name) for name in ("validation", "test")}
    arrays = {f"{letter}_{name}": getattr(part, field) for name, part in parts.items() for letter, field in AXES}
    np.savez(edgekd.folder / "digits.npz", **arrays)
    edgekd.write("my_model.py", (MODEL / "my_model.py").read_text())
    (edgekd.folder / "my_model.safetensors").write_bytes((MODEL / "my_model.safetensors").read_bytes())
    edgekd.change(
        "project.yaml", "task: {kind: digits, train_limit: 256}", "task: {kind: image-classification, data: digits.npz}"
    )
    edgekd.change(
        "project.yaml",
        "{kind: train, width: 16, epochs: 2}",
        "{kind: torch, module: 'my_model.py:build', weights: my_model.safetensors}",
    )
    refused = edgekd("search", "project.yaml", "--run", "run")
    assert refused.returncode == 3
    assert "has no training samples" in refused.stderr
    assert "data-free" in refused.stderr
    before = (edgekd.folder / "project.yaml").read_text()
    line = next(line for line in before.splitlines() if "- distill:" in line)
    edgekd.change("project.yaml", line, "  - data-free: {epochs: 4, rounds: 10}")
    done = edgekd("search", "project.yaml", "--run", "run2")
    assert done.returncode in (0, 6), done.stderr  # a busy machine may leave the verdict open
    certificate = json.loads((edgekd.folder / "run2" / "bundle" / "certificate.json").read_text())
    assert certificate["accuracy"]["value"] > 0.25  # guessing is 0.1
    assert certificate["parity"]["agree"] == certificate["parity"]["samples"]
