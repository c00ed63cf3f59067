"""The words of preprocess.json are instructions: followed to the letter they must give what the file takes."""

from __future__ import annotations

import ast
import itertools
import re
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.bundle.preprocess import Preprocess, preprocess_of
from edgekd.bundle.samples import Samples
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import from_model_outputs, to_model_inputs
from edgekd.ir.encoding import Encoding
from edgekd.tasks._protocol import PictureSpec, TaskSpec

FIELDS = ExportOptions.model_fields
COMBINATIONS = [
    ExportOptions(input=dtype, layout=layout, preprocess=preprocess)
    for dtype, layout, preprocess in itertools.product(
        *(get_args(FIELDS[name].annotation) for name in ("input", "layout", "preprocess"))
    )
]
ENCODING = Encoding(bits=8, scale=(0.03,), zero_point=(-9,))


def followed(stated: Preprocess, raw: NDArray[Any]) -> NDArray[Any]:
    """Do what the words say, and nothing else."""
    values: NDArray[Any] = raw.astype(np.float32)
    for step in stated.input.steps:
        if normalise := re.fullmatch(r"subtract mean (\[.*\]) and divide by std (\[.*\]), per channel.*", step):
            mean, std = (np.float32(ast.literal_eval(found)).reshape(-1, 1, 1) for found in normalise.groups())
            values = (values - mean) / std
        elif quantize := re.fullmatch(r"quantize: round\(x / (\S+)\) \+ (-?\d+), kept within (-?\d+)\.\.(\d+)", step):
            scale, zero, low, high = map(float, quantize.groups())
            values = np.clip(np.rint(values / np.float32(scale)) + zero, low, high)
        elif step == "subtract 128":
            values = values - 128
        elif step == "order the axes as batch, height, width, channel":
            values = values.transpose(0, 2, 3, 1)
        else:
            raise AssertionError(f"nobody knows how to do this: {step}")
    return values.astype(stated.input.dtype)


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda o: f"{o.input}-{o.layout}-{o.preprocess}")
def test_following_the_words_gives_the_inputs(options: ExportOptions, spec: TaskSpec, samples: Samples) -> None:
    stated = preprocess_of(spec, options, ENCODING, ENCODING)
    (expected,) = to_model_inputs(samples.inputs, spec, options, ENCODING)
    found = followed(stated, samples.inputs)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape == (len(samples.inputs), *stated.input.shape[1:])
    if options.input == "float32":
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


def test_what_becomes_of_a_picture_is_said(spec: TaskSpec) -> None:
    assert "picture" not in preprocess_of(spec, ExportOptions(), None, None).model_dump(mode="json")
    of_pictures = spec.but(input=spec.input.but(picture=PictureSpec(size=(4, 5), fit="crop")))
    said = preprocess_of(of_pictures, ExportOptions(), None, None).model_dump(mode="json")["picture"]
    assert said.pop("steps") == [
        "turn it as its EXIF tag says: ImageOps.exif_transpose",
        "of 16 bits take the upper 8",
        "convert it to RGB: Image.convert; what it says of transparency is dropped",
        "resize the largest part in the middle of that aspect to 5 x 4: "
        "ImageOps.fit((5, 4), Image.Resampling.BILINEAR)",
    ]
    assert said == {"size": [4, 5], "fit": "crop", "mode": "RGB", "orientation": "exif", "resampling": "bilinear"}


def test_there_are_twelve_combinations() -> None:
    assert len(COMBINATIONS) == 12


@pytest.mark.parametrize("output", get_args(FIELDS["output"].annotation))
def test_scale_and_zero_point_bring_logits_back(output: Any, spec: TaskSpec) -> None:
    options = ExportOptions(output=output)
    stated = preprocess_of(spec, options, None, ENCODING)
    given = np.array([[0, 17, 100]], dtype=output)
    expected = from_model_outputs(given, options, ENCODING)
    if output == "float32":
        assert stated.output.scale is None
        return
    assert stated.output.scale is not None
    assert stated.output.zero_point is not None
    found = (given.astype(np.float32) - stated.output.zero_point) * np.float32(stated.output.scale)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_the_caller_does_not_quantize_has_no_encoding(spec: TaskSpec) -> None:
    folded = preprocess_of(spec, ExportOptions(input="uint8"), ENCODING, ENCODING)
    assert folded.input_encoding is None
    assert folded.output_encoding is None
    stated = preprocess_of(spec, ExportOptions(input="int8", preprocess="stated"), ENCODING, ENCODING)
    assert stated.input_encoding == ENCODING


def test_labels_and_batch_are_reported(spec: TaskSpec) -> None:
    stated = preprocess_of(spec, ExportOptions(batch="dynamic"), None, None)
    assert stated.input.shape[0] == "dynamic"
    assert stated.output.labels == spec.head.labels
