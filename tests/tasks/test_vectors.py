"""Labels (N, C): what they are taken for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadSpec, Task
from edgekd.tasks.arrays import images_of
from edgekd.tasks.images.classification import ImageClassification
from edgekd.tasks.vectors import head_of, vector_rows
from edgekd.testing.contracts.task import TaskContract
from edgekd.testing.fakes.spots import SpotTask

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, (60, 3))
NUMBERS = RNG.normal([50, 0.1], [10, 0.02], (60, 2))


def write(folder: Path, labels: np.ndarray, test: np.ndarray | None = None, **more: np.ndarray) -> Path:
    random = np.random.default_rng(1)
    train, other = (random.integers(0, 255, (count, 8, 8)).astype(np.uint8) for count in (len(labels), 12))
    held = labels[:12] if test is None else test
    np.savez(folder / "data.npz", x_train=train, y_train=labels, x_test=other, y_test=held, **more)
    return folder / "data.npz"


class TestLabels(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        path = write(tmp_path, LABELS)
        return lambda: ImageClassification(data=path, calibration=12, validation=0.3)


class TestNumbers(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        path = write(tmp_path, NUMBERS)
        return lambda: ImageClassification(data=path, calibration=12, validation=0.3)


class TestSpots(TaskContract):
    @pytest.fixture
    def make_task(self) -> Callable[[], Task]:
        return SpotTask


def test_a_head_has_the_training_splits_own_mean_and_deviation(tmp_path: Path) -> None:
    task = ImageClassification(data=write(tmp_path, NUMBERS), calibration=12, labels=("age", "share"), invariant=True)
    head, labels = task.spec.head, task.split("train").labels["numbers"]
    assert head.kind == "regression"
    assert head.labels == ("age", "share")
    assert head.invariant
    np.testing.assert_allclose(head.mean, labels.mean(0), rtol=1e-4)
    np.testing.assert_allclose(head.std, labels.std(0), rtol=1e-4)
    assert task.spec.metric.name == "R2"
    assert "invariant" not in ImageClassification(data=task.data).model_dump()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full((5, 2), 2), "one of them is 2"),
        (np.eye(5, dtype=np.float32), "single 1"),
        (np.asarray([[0.0, 1.0], [1.0, 1.0]]), "all of them 0 or 1"),
        (np.asarray([[0.0, np.inf], [1.0, 1.0]]), "infinite"),
        (np.full((5, 2), "a"), "<U1"),
    ],
)
def test_labels_of_neither_kind_are_refused(labels: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        images_of(np.zeros((len(labels), 4, 4), np.uint8), labels, "auto", "here")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.asarray([[0, 1], [0, 0]]), "`a` is 0 in all"),
        (np.asarray([[1, 1], [-1, 0]]), "`a` is 1 in all"),
        (np.asarray([[-1, 1], [-1, 0]]), "`a` is known of no image"),
        (np.asarray([[np.nan, 3.0], [np.nan, 2.0]]), "`a` is NaN in all"),
        (np.asarray([[4.0, 3.0], [4.0, 2.0]]), "`a` is 4 in all"),
    ],
)
def test_a_column_that_teaches_nothing_is_named(labels: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        head_of(vector_rows(labels, "here"), ("a", "b"), False, "data")


def test_other_counts_and_kinds_are_refused(tmp_path: Path) -> None:
    for test in (LABELS[:12, :2], NUMBERS[:12], np.zeros(12, np.int64)):
        with pytest.raises(ConfigurationError, match="test labels are"):
            _ = ImageClassification(data=write(tmp_path, LABELS, test), calibration=12).spec
    with pytest.raises(ConfigurationError, match="2 label names, and 3 labels"):
        _ = ImageClassification(data=write(tmp_path, LABELS), calibration=12, labels=("a", "b")).spec
    with pytest.raises(ConfigurationError, match="`invariant` is for labels that are numbers"):
        _ = ImageClassification(data=write(tmp_path, np.arange(60) % 3), calibration=12, invariant=True).spec


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "regression"},
        {"kind": "regression", "mean": (1.0,), "std": (1.0, 1.0)},
        {"kind": "regression", "mean": (1.0, 1.0), "std": (1.0, 0.0)},
        {"kind": "multilabel", "mean": (1.0, 1.0), "std": (1.0, 1.0)},
    ],
)
def test_mean_and_deviation_belong_to_numbers(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="head `x`"):
        HeadSpec.model_validate({"name": "x", "classes": 2, **fields})
