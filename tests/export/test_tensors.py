"""Raw samples to model inputs and back, by hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import from_model_outputs, to_model_inputs
from edgekd.ir.encoding import Encoding
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(
    name="t",
    input=InputSpec(shape=(2, 1, 3), mean=(10.0, 20.0), std=(2.0, 4.0)),
    head=HeadSpec(classes=2),
    data="0" * 64,
)
RAW = np.array([[[[10, 12, 255]], [[20, 24, 0]]]], np.uint8)
STEP = Encoding(bits=8, scale=(0.5,), zero_point=(3,))


def test_folded_values_stay_raw() -> None:
    (taken,) = to_model_inputs(RAW, SPEC, ExportOptions(layout="nchw"), None)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, RAW)
    np.testing.assert_array_equal(to_model_inputs(RAW, SPEC, ExportOptions(input="uint8", layout="nchw"), None)[0], RAW)


def test_int8_is_uint8_less_128() -> None:
    (taken,) = to_model_inputs(RAW, SPEC, ExportOptions(input="int8", layout="nchw"), None)
    assert taken.dtype == np.int8
    np.testing.assert_array_equal(taken.ravel(), [-118, -116, 127, -108, -104, -128])


def test_channels_go_last() -> None:
    (taken,) = to_model_inputs(RAW, SPEC, ExportOptions(layout="nhwc"), None)
    assert taken.shape == (1, 1, 3, 2)
    assert taken.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(taken[0, 0, 1], [12, 24])


def test_stated_values_are_normalised_a_channel() -> None:
    (taken,) = to_model_inputs(RAW, SPEC, ExportOptions(preprocess="stated", layout="nchw"), None)
    np.testing.assert_array_equal(taken.ravel(), [0, 1, 122.5, 0, 1, -5])


@pytest.mark.parametrize(
    ("dtype", "expected"), [("int8", [3, 5, 127, 3, 5, -7]), ("uint8", [131, 133, 255, 131, 133, 121])]
)
def test_stated_integers_are_encoded_and_clamped(dtype: str, expected: list[int]) -> None:
    options = ExportOptions.model_validate({"input": dtype, "preprocess": "stated", "layout": "nchw"})
    np.testing.assert_array_equal(to_model_inputs(RAW, SPEC, options, STEP)[0].ravel(), expected)
    with pytest.raises(ConfigurationError, match="needs an encoding"):
        to_model_inputs(RAW, SPEC, options, None)


@pytest.mark.parametrize(("dtype", "given"), [("int8", [3, 5]), ("uint8", [131, 133]), ("float32", [0.0, 1.0])])
def test_outputs_become_logits(dtype: str, given: list[float]) -> None:
    options = ExportOptions.model_validate({"output": dtype})
    logits = from_model_outputs(np.array([given], dtype), options, STEP)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [[0.0, 1.0]])


def test_integer_outputs_need_their_encoding() -> None:
    with pytest.raises(ConfigurationError, match="output int8 needs an encoding"):
        from_model_outputs(np.zeros((1, 2), np.int8), ExportOptions(output="int8"), None)
