"""Tasks from .npz files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgekd.errors import ConfigurationError
from edgekd.tasks.images.classification import ImageClassification
from edgekd.testing.contracts.task import TaskContract


def arrays(channels: int = 3, train: int = 300, test: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, 8, 8, channels)).astype(np.uint8),
        "y_train": (np.arange(train) % 5).astype(np.uint8),
        "x_test": rng.integers(0, 256, (test, 8, 8, channels)).astype(np.uint8),
        "y_test": (np.arange(test) % 5).astype(np.uint8),
    }


def task(folder: Path, found: dict[str, np.ndarray], **options) -> ImageClassification:
    np.savez(folder / "data.npz", **found)
    chosen = {"data": "data.npz", "calibration": 50, **options}
    return ImageClassification.model_validate(chosen, context={"folder": folder})


class TestPixels(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        return lambda: task(tmp_path, {**arrays(), "class_names": np.array(list("abcde"))})


class TestFloats(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        found = arrays(1)
        for name in ("x_train", "x_test"):
            found[name] = found[name].astype(np.float32).transpose(0, 3, 1, 2) / 17 - 3
        return lambda: task(tmp_path, found, per_channel=True)


class TestOwnValidation(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        found = arrays()
        extra = {"x_validation": found["x_train"][:40] // 2, "y_validation": found["y_train"][:40]}
        return lambda: task(tmp_path, {**found, **extra})


def untaught(**images: int) -> dict[str, np.ndarray]:
    """No training images."""
    found = arrays(**images)
    return {name.replace("train", "validation"): array for name, array in found.items()}


class TestNoTrainingImages(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        return lambda: task(tmp_path, untaught())


def test_without_training_images_some_for_validation_calibrate(tmp_path):
    found = task(tmp_path, untaught(train=60), calibration=512)
    assert [len(found.split(name)) for name in ("train", "validation", "calibration", "test")] == [0, 30, 30, 60]
    assert found.spec.input.shape == (3, 8, 8)
    assert found.spec.input.mean == pytest.approx((found.split("calibration").inputs.mean(),), rel=1e-4)
    with pytest.raises(ConfigurationError, match="there are no training samples, and 19 for validation"):
        _ = task(tmp_path, untaught(train=19)).spec


@pytest.mark.parametrize(("wrong", "right"), [("x_trian", "x_train"), ("X", "x_train"), ("labels", "y_test")])
def test_arrays_of_other_names_are_reported_while_the_project_is_read(tmp_path, wrong, right):
    found = arrays()
    found[wrong] = found.pop(right)
    with pytest.raises(ValidationError, match=rf"{wrong}.*; needed: x_train, y_train, x_test, y_test") as caught:
        task(tmp_path, found)
    assert caught.value.errors()[0]["loc"] == ("data",)


def test_a_misspelt_array_is_no_lack_of_training_images(tmp_path):
    found = {**arrays(), **{name: array[:40] for name, array in untaught().items() if "validation" in name}}
    found["x_trian"] = found.pop("x_train")
    with pytest.raises(ConfigurationError, match="x_train"):
        _ = task(tmp_path, found).spec


def test_spec_is_what_the_file_says(tmp_path):
    spec = task(tmp_path, {**arrays(), "class_names": np.array(list("abcde"))}, flip=True).spec
    assert spec.name == "data"
    assert spec.input.shape == (3, 8, 8)
    assert spec.head.labels == tuple("abcde")
    assert spec.flip
    assert len(spec.input.mean) == 1


def test_channels_have_their_own_statistics_when_asked(tmp_path):
    spec = task(tmp_path, arrays(), per_channel=True).spec
    assert len(set(spec.input.mean)) == 3


def test_given_statistics_are_used(tmp_path):
    spec = task(tmp_path, arrays(), mean=127.5, std=[60.0, 61.0, 62.0]).spec
    assert spec.input.mean == (127.5,)
    assert spec.input.std == (60.0, 61.0, 62.0)


@pytest.mark.parametrize("options", [{"mean": 1.0}, {"mean": 1.0, "std": 0.0}, {"validation": 1.5}, {"colour": True}])
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises(ValidationError):
        task(tmp_path, arrays(), **options)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"y_test": np.full(60, 5)}, {}, "a test label is 5"),
        ({"x_test": np.zeros((60, 8, 8, 1), np.uint8)}, {}, "one shape and type"),
        ({"class_names": np.array(["a", "b"])}, {}, "2 label names"),
        ({"y_train": arrays()["y_train"] + 1}, {}, "labels are 1 to 5, and no sample is of class 0"),
        ({"y_train": arrays()["y_train"] * 0, "y_test": arrays()["y_test"] * 0}, {}, "labels are 0 to 0"),
        ({"x_train": np.zeros((300, 8, 8, 3), np.uint8)}, {}, "no sample is left"),
        ({}, {"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "`mean` has 2 values"),
    ],
)
def test_wrong_data_is_refused(tmp_path, changes, options, said):
    with pytest.raises(ConfigurationError, match=said):
        _ = task(tmp_path, {**arrays(), **changes}, **options).spec


def test_class_names_may_be_bytes(tmp_path):
    assert task(tmp_path, {**arrays(), "class_names": np.array(list("abcde"), "S")}).spec.head.labels == tuple("abcde")


@pytest.mark.parametrize("label", [300, 4294967295, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_above_the_number_of_samples_is_refused_at_once(tmp_path, label, part):
    found = arrays(train=200, test=60)
    found[f"y_{part}"] = found[f"y_{part}"].astype(np.uint64)
    found[f"y_{part}"][17] = label
    with pytest.raises(ConfigurationError, match=rf"label 17 (of y_{part} )?is {label}") as caught:
        _ = task(tmp_path, found).spec
    assert f"data.npz{' ' if label == 2**64 - 1 else ':'}" in str(caught.value)


def test_class_names_without_an_axis_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"data\.npz class_names: the names are an array \(\)"):
        _ = task(tmp_path, {**arrays(), "class_names": np.array("abcde")}).spec


@pytest.mark.parametrize(("make", "kind"), [(Path.mkdir, "a folder"), (os.mkfifo, "a pipe or a device")])
def test_data_that_is_no_file_is_called_what_it_is(tmp_path, make, kind):
    make(tmp_path / "data.npz")
    with pytest.raises(ValidationError, match=rf"data\.npz is {kind}; a file is expected"):
        ImageClassification.model_validate({"data": "data.npz"}, context={"folder": tmp_path})


def test_a_missing_file_offers_the_nearest(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **arrays())
    with pytest.raises(ValidationError, match=r"did you mean `cifar10\.npz`"):
        ImageClassification.model_validate({"data": "cifar.npz"}, context={"folder": tmp_path})


@pytest.mark.skipif("EDGEKD_DATA" not in os.environ, reason="EDGEKD_DATA names no folder with cifar10-tiny.npz")
def test_a_real_file():
    data = Path(os.environ["EDGEKD_DATA"]) / "cifar10-tiny.npz"
    found = ImageClassification.model_validate({"data": data, "calibration": 100})
    assert found.spec.head.labels[3] == "cat"
    assert len(found.split("test")) == 400
