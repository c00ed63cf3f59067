"""A tiny task and what trains on it in a fraction of a second."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.records import digest_bytes
from edgekd.students._protocol import Arch, StageContext
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, TaskSpec


class TinyTask:
    """Three classes told apart by where a bright bar lies in an 8 x 8 image; 90 samples to train on."""

    def __init__(self):
        self.spec = TaskSpec(
            name="bars",
            input=InputSpec(shape=(1, 8, 8), mean=(60.0,), std=(60.0,)),
            head=HeadSpec(classes=3),
            data=digest_bytes(b"bars"),
        )

    def split(self, name):
        count, seed = {"train": (90, 0), "validation": (30, 1), "calibration": (16, 2), "test": (30, 3)}[name]
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, count)
        inputs = rng.integers(0, 120, (count, 1, 8, 8)).astype(np.uint8)
        for image, label in zip(inputs, labels, strict=True):
            image[0, 1 + 2 * label : 3 + 2 * label] += 100
        return Split(name, inputs, labels, digest_bytes(inputs.tobytes() + labels.tobytes()))

    def score(self, outputs, labels):
        correct = outputs.argmax(1) == labels
        return Score(metric="top1", value=float(correct.mean()), samples=len(labels), correct=tuple(map(bool, correct)))


class BarTeacher:
    """Knows where to look. Counts how often it is asked."""

    name, classes = "bar", 3

    def __init__(self):
        self.images = 0

    def digest(self):
        return digest_bytes(b"bar teacher")

    def logits(self, batch):
        self.images += len(batch)
        return (batch[:, 0, 1:7].reshape(len(batch), 3, 2, 8).mean((2, 3)) / 20).float()


@pytest.fixture
def task():
    return TinyTask()


@pytest.fixture
def teacher():
    return BarTeacher()


@pytest.fixture
def student(task):
    family = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 2]}, "stages": 2})
    return new_student(family, Arch.of({"width1": 8, "width2": 8, "depth1": 1, "depth2": 1}), task.spec, seed=0)


@pytest.fixture
def context(task, teacher):
    """A function from a folder to a stage's context."""

    def make(folder, **changes):
        options = {
            "task": task,
            "teacher": teacher,
            "device": None,
            "backend": None,
            "folder": folder / "stage",
            "cache": folder / "cache",
            "seed": 3,
            "progress": lambda at: None,
            "stop": lambda: False,
        }
        return StageContext(**{**options, **changes})

    return make
