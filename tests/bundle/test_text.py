"""What a bundle of a text task says of its input, and how its example makes ids of a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.artefacts import Backend, Format
from edgekd.bundle.example import example_source
from edgekd.bundle.preprocess import preprocess_of
from edgekd.export._protocol import ExportOptions
from edgekd.export.io_wrapper import unwritable
from edgekd.ir.numerics import Precision
from edgekd.tasks.text_classification import TextClassification
from tests.tasks.reviews import written


@pytest.fixture
def task(tmp_path: Path) -> TextClassification:
    options = {"file": str(written(tmp_path)), "tokens": 8, "vocabulary": 90}
    return TextClassification.model_validate(options, context={"folder": tmp_path})


def test_a_sentence_becomes_the_ids_that_were_trained_on(task: TextClassification, tmp_path: Path) -> None:
    for name, content in task.shipped().items():
        (tmp_path / name).write_bytes(content)
    source = example_source(
        "model.tflite", Backend.model_validate("litert/xnnpack"), 1, ExportOptions(), task.spec, None
    )
    compile(source, "example.py", "exec")
    split = task.split("train")
    names: dict[str, Any] = {"np": np, "samples": {"inputs": split.inputs}, "here": tmp_path}
    for words, expected in (([], split.inputs[:1]), (["a sad film"], None)):
        names["sys"] = SimpleNamespace(argv=["example.py", *words])
        exec(source[source.index("batch = samples") : source.index("model = ")], names)
        assert (names["batch"].dtype, names["batch"].shape) == (np.int32, (1, 8))
        if expected is not None:
            np.testing.assert_array_equal(names["batch"], expected)
    assert names["batch"][0, -1] == task.spec.input.text.padding
    assert '["labels"][int(np.argmax(answer))]' in source


def test_the_input_is_stated_as_ids(task: TextClassification) -> None:
    stated = preprocess_of(task.spec, ExportOptions(batch=2), None, None)
    assert (stated.input.dtype, stated.input.layout, stated.input.shape) == ("int32", "nt", (2, 8))
    assert stated.input.steps == ()
    assert stated.text is not None
    assert stated.text.tokenizer == task.spec.input.text.tokenizer


@pytest.mark.parametrize("options", [ExportOptions(input="uint8"), ExportOptions(preprocess="stated")])
def test_ids_have_no_other_form(task: TextClassification, options: ExportOptions) -> None:
    (problem,) = unwritable(task.spec, Precision.FLOAT32, options, Format.ONNX)
    assert "ids of tokens, int32" in problem.message
