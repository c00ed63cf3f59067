"""Whatever is wrong with what a person hands over is said with file, line, field and nearest name; exit 3."""

from __future__ import annotations

import textwrap

import pytest

pytestmark = pytest.mark.journey


def test_every_mistake_of_every_file_at_once(edgekd):
    edgekd.change("project.yaml", "temperature: 4", "temperatur: 4")
    edgekd.change("project.yaml", "family: resnet", "family: resnett")
    edgekd.change("target.yaml", "100 ms", "100")
    done = edgekd("search", "project.yaml")
    assert done.returncode == 3
    assert "project.yaml:7:" in done.stderr
    assert "recipe[0].distill.loss.kd.temperatur" in done.stderr
    assert "did you mean `temperature`?" in done.stderr
    assert "project.yaml:4:" in done.stderr
    assert "did you mean `resnet`?" in done.stderr
    assert "target.yaml:5:" in done.stderr
    assert "budgets.latency.p95" in done.stderr
    assert "100 has no unit" in done.stderr
    assert "2 more problems" in done.stderr
    assert done.stdout == ""
    assert not (edgekd.folder / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("target: target.yaml", "target: this-computr", ("project.yaml:5", "target", "this-computer")),
        ("kind: digits", "kind: digit", ("project.yaml:2", "task", "did you mean `digits`?")),
        ("trials: 2", "trails: 2", ("project.yaml:9", "search.trails", "did you mean `trials`?")),
        ("budget: 1 h", "budget: 60", ("project.yaml:9", "search.budget", "60 has no unit")),
        ("precision: int8", "precision: int7", ("project.yaml:8", "recipe[1].quantize.precision", "int8")),
        (
            "precision: int8}\n", "precision: int8}\n  - distill: {epochs: 1}\n",
            ("project.yaml:9", "recipe[2].distill", "needs float weights, and quantize", "put distill before quantize"),
        ),
        ("kind: train, width: 16, epochs: 2", "kind: onnx, file: no.onnx", ("yaml:3", "teacher.file", "no.onnx")),
    ],
)  # fmt: skip
def test_one_mistake_is_reported_with_its_place(edgekd, old, new, words):
    edgekd.change("project.yaml", old, new)
    done = edgekd("search", "project.yaml")
    assert done.returncode == 3, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_file_that_is_not_there(edgekd):
    done = edgekd("search", "projct.yaml")
    assert done.returncode == 3
    assert "projct.yaml" in done.stderr
    assert "project.yaml" in done.stderr.replace("projct.yaml", "")


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_a_corrupt_model(edgekd, name):
    (edgekd.folder / name).write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(256)) if name.endswith("tflite") else b"no")
    done = edgekd("bench", name)
    assert done.returncode == 3, done.stdout + done.stderr
    assert name in done.stdout + done.stderr


def test_a_corrupt_teacher(edgekd):
    (edgekd.folder / "teacher.onnx").write_bytes(b"nothing of a model")
    edgekd.change("project.yaml", "kind: train, width: 16, epochs: 2", "kind: onnx, file: teacher.onnx")
    done = edgekd("search", "project.yaml")
    assert done.returncode == 3, done.stderr
    assert "teacher.onnx can't be loaded by ONNX Runtime" in done.stderr


def test_a_teacher_with_other_classes(edgekd):
    edgekd.write(
        "my_teacher.py",
        textwrap.dedent(
            """
            from torch import nn

            def seven():
                return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
            """
        ),
    )
    edgekd.change("project.yaml", "kind: train, width: 16, epochs: 2", "kind: torch, module: my_teacher.py:seven")
    done = edgekd("search", "project.yaml")
    assert done.returncode == 3, done.stderr
    assert "teacher `seven` has 7 classes, and task `digits` has 10" in done.stderr
    assert "runs code from" in done.stderr  # said before it ran
