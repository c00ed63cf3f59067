"""Labelled images in four parts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks.arrays import images_of
from edgekd.tasks.labelled import CarvedImages, LabelledImages, statistics
from edgekd.tasks.splits import content_keys, digest_arrays


def images(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    return LabelledImages(rng.integers(0, 256, (count, 1, 4, 4), np.uint8), rng.integers(0, 3, count).astype(np.int64))


def carved(train: LabelledImages, test: LabelledImages, validation: LabelledImages | None = None) -> CarvedImages:
    return CarvedImages("planted", train, lambda: test, validation, 0.2, 20)


def contents(part) -> set[bytes]:
    return {sample.tobytes() for sample in part.inputs}


def test_a_training_image_that_is_in_test_is_dropped():
    train, test = images(200, 0), images(50, 1)
    train.inputs[7] = test.inputs[3]  # the planted duplicate
    data = carved(train, test)
    kept = [data.split(name) for name in ("train", "validation", "calibration")]
    assert len(data.split("train")) + len(data.split("validation")) == 199
    assert not any(contents(part) & contents(data.split("test")) for part in kept)


def test_images_of_given_validation_are_dropped_where_they_do_not_belong():
    train, validation, test = images(200, 0), images(40, 1), images(50, 2)
    train.inputs[7] = validation.inputs[3]
    validation.inputs[9] = test.inputs[4]
    data = carved(train, test, validation)
    assert len(data.split("validation")) == 39
    assert len(data.split("train")) == 199


def test_calibration_images_are_training_images_and_stay_there():
    """600 images with 512 for calibration once left 28 to train on."""
    train, test = images(600, 0), images(50, 1)
    data = CarvedImages("small", train, lambda: test, None, 0.1, 512)
    assert len(data.split("train")) == 540
    assert contents(data.split("calibration")) < contents(data.split("train"))
    assert str(data.sizes) == "540 train · 60 validation · 50 test · 512 calibration (of train)"
    fewer = CarvedImages("small", images(100, 0), lambda: test, None, 0.1, 512)
    assert fewer.sizes.calibration == fewer.sizes.train == 90


def test_the_test_images_are_not_kept():
    calls = []
    test = images(50, 1)
    data = CarvedImages("planted", images(200, 0), lambda: calls.append(1) or test, None, 0.2, 20)
    data.split("train")
    _ = data.data
    assert len(calls) == 1
    data.split("test")
    assert len(calls) == 2


def test_a_limit_takes_from_training_alone():
    train, test = images(200, 0), images(50, 1)
    full = carved(train, test)
    limited = CarvedImages("planted", train, lambda: test, None, 0.2, 20, train_limit=30)
    assert len(limited.split("train")) == 30
    assert limited.split("validation").digest == full.split("validation").digest
    assert limited.data != full.data


def test_an_empty_part_is_refused():
    with pytest.raises(ConfigurationError, match="no sample is left for train"):
        CarvedImages("planted", images(20, 0), lambda: images(5, 1), None, 0.99, 20).split("train")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_are_those_of_numpy(dtype):
    values = images(100, 0).inputs.repeat(2, axis=1).astype(dtype)
    values[:, 1] //= 2
    mean, std = statistics(values, per_channel=True)
    assert mean == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-5)
    assert std == pytest.approx(values.std(axis=(0, 2, 3)), rel=1e-5)
    one_mean, one_std = statistics(values, per_channel=False)
    assert one_mean == pytest.approx((values.mean(),), rel=1e-5)
    assert one_std == pytest.approx((values.std(),), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1000, 2000])
def test_work_over_images_takes_no_more_memory_for_more_of_them(dtype, count):
    inputs = np.zeros((count, 64, 64, 3), dtype).transpose(0, 3, 1, 2)  # channels last: what is read has to be copied
    inputs[0] = 1
    tracemalloc.start()
    statistics(inputs, per_channel=False)
    content_keys(inputs)
    digest_arrays(inputs)
    images_of(inputs, np.zeros(count, np.int64), "nchw", "here")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * 1024**2
