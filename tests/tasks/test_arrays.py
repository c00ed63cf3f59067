"""From arrays to labelled images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import InputSpec
from edgekd.tasks.arrays import images_of

LABELS = np.zeros(5, np.uint8)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 6, 7), "auto", (5, 1, 6, 7)),
        ((5, 6, 7, 3), "auto", (5, 3, 6, 7)),
        ((5, 3, 6, 7), "auto", (5, 3, 6, 7)),
        ((5, 3, 6, 3), "nhwc", (5, 3, 3, 6)),
        ((5, 3, 6, 3), "nchw", (5, 3, 6, 3)),
        ((5, 2, 6, 7), "nchw", (5, 2, 6, 7)),
    ],
)
def test_layouts(shape, layout, expected):
    images = images_of(np.zeros(shape, np.uint8), LABELS, layout, "here")
    assert images.inputs.shape == expected
    assert images.labels.dtype == np.int64


def test_channels_last_values_land_in_their_channels():
    inputs = np.random.default_rng(0).integers(0, 9, (5, 6, 7, 3)).astype(np.uint8)
    images = images_of(inputs, LABELS, "auto", "here")
    assert np.array_equal(images.inputs[:, 2], inputs[..., 2])


@pytest.mark.parametrize(
    ("inputs", "labels", "said"),
    [
        (np.zeros((5, 6, 7)), LABELS, "float64"),
        (np.zeros((5, 42), np.uint8), LABELS, r"\(5, 42\)[\s\S]*layout: nct"),
        (np.zeros((5, 3, 6, 3), np.uint8), LABELS, "first or last"),
        (np.zeros((5, 2, 6, 7), np.uint8), LABELS, "first or last"),
        (np.zeros((4, 6, 7), np.uint8), LABELS, "4 samples and 5 labels"),
        (np.zeros((0, 6, 7), np.uint8), LABELS[:0], "no samples"),
        (np.zeros((5, 6, 7), np.uint8), LABELS.astype(np.float32), "float32"),
        (np.zeros((5, 6, 7), np.uint8), LABELS.astype(np.int8) - 1, "-1"),
        (np.zeros((5, 6, 7), np.uint8), np.eye(5, dtype=np.int64), r"\(5, 5\)"),
        (np.full((5, 6, 7), np.nan, np.float32), LABELS, "NaN"),
        (np.zeros((5, 1, 8000), np.int16), LABELS, r"samples are int16 \(5, 1, 8000\)[\s\S]*16-bit audio"),
        (np.zeros((5, 12), np.int64), LABELS, "a task of kind text-classification"),
    ],
)
def test_wrong_arrays_are_named(inputs, labels, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        images_of(inputs, labels, "auto", "data.npz train")
    assert "data.npz train" in str(caught.value)


def test_floats_of_the_other_byte_order_are_read():
    inputs = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    images = images_of(inputs.astype(">f4"), LABELS, "auto", "here")
    assert images.inputs.dtype == np.float32
    assert np.array_equal(images.inputs[:, 0], inputs)


@pytest.mark.parametrize(
    ("shape", "what"), [((3, 8, 8), "images"), ((1, 40, 1), "images"), ((1, 1, 8), "signals"), ((2, 8), "signals")]
)
def test_samples_are_images_where_they_have_rows(shape, what):
    assert InputSpec(shape=shape).what == what
