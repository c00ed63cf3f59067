"""Models of several inputs: float32 files in three formats that answer as the model does, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd import api
from edgekd.artefacts import Format
from edgekd.cli.main import main
from edgekd.errors import ConfigurationError, UsageError
from edgekd.events import SilentEvents
from edgekd.export.several import answers_to
from edgekd.exporting.bundling import require_replaceable
from edgekd.exporting.model_argument import given_model
from edgekd.exporting.naming import shapes_of
from edgekd.exporting.several import require_taken

SOURCE = """
import torch
from torch import nn


class PictureAndNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.numbers, self.classes = nn.Linear(4, 8), nn.Linear(16, 5)

    def forward(self, picture, numbers):
        return self.classes(torch.cat((self.trunk(picture).mean((2, 3)), self.numbers(numbers).relu()), 1))


def both():
    torch.manual_seed(0)
    return PictureAndNumbers()
"""


WITH_META = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.meta = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, image, meta=None):
        return self.image(image) if meta is None else self.image(image) + self.meta(meta)


def build():
    return Net()
"""


@pytest.fixture
def both(folder):
    (folder / "with_numbers.py").write_text(SOURCE)
    return "with_numbers.py:both"


@pytest.mark.slow
@pytest.mark.runtime
def test_files_of_all_formats_answer_as_the_model(both, folder):
    answer = api.export_model(both, output="out", shape=[(3, 8, 8), (4,)], events=SilentEvents())
    assert [(row.format, row.outcome, row.detail) for row in answer.files] == [(form, "written", "") for form in Format]
    assert all(row.parity.agree == row.parity.samples == 16 for row in answer.files)
    stated = json.loads((folder / "out" / "onnx" / "inputs.json").read_text())
    assert [(one["name"], one["shape"]) for one in stated["inputs"]] == [
        ("picture", [1, 3, 8, 8]), ("numbers", [1, 4]),
    ]  # fmt: skip
    samples = np.load(folder / "out" / "tflite" / "samples.npz")
    module = given_model(both, None).module(print)
    assert np.allclose(answers_to(module, [samples["picture"], samples["numbers"]]), samples["answers"], atol=1e-5)
    require_replaceable(folder / "out" / "onnx")
    (folder / "out" / "onnx" / "mine.py").touch()
    with pytest.raises(UsageError, match="more than a bundle"):
        api.export_model(both, output="out", shape=[(3, 8, 8), (4,)], events=SilentEvents())


@pytest.mark.slow
@pytest.mark.runtime
def test_they_are_converted_to_be_timed(both, folder):
    asked = ["bench", both, "--input", "3x8x8,4", "--backend", "onnxruntime/cpu", "--processes", "1", "-q"]
    assert main(asked) in (0, 6)  # 6: a busy machine


def test_shapes_that_do_not_fit_are_reported(both):
    module = given_model(both, None).module(print)
    assert [values.shape for values in require_taken(module, "both", ((3, 8, 8), (4,)))] == [(16, 3, 8, 8), (16, 4)]
    with pytest.raises(ConfigurationError, match=r"takes 2 inputs \(picture, numbers\), and --input has 3 shapes"):
        require_taken(module, "both", ((3, 8, 8), (4,), (2,)))
    with pytest.raises(ConfigurationError, match=r"can't take float32 inputs \(1, 3, 8, 8\), \(1, 5\): mat1"):
        require_taken(module, "both", ((3, 8, 8), (5,)))
    with pytest.raises(UsageError, match="a shape an input expected"):
        shapes_of("3x8x8,")


@pytest.mark.parametrize(
    "asked",
    [{"precisions": ["int8"]}, {"max_drop": 0.01}, {"mean": (1.0,), "std": (1.0,)}, {"target": "t"}, {"data": "d.npz"}],
)
def test_what_needs_one_input_is_refused(both, asked):
    with pytest.raises(UsageError, match="is for models of one input"):
        api.export_model(both, output="out", shape=[(3, 8, 8), (4,)], events=SilentEvents(), **asked)


def test_an_optional_input_may_have_a_shape(folder):
    (folder / "with_meta.py").write_text(WITH_META)
    given = given_model("with_meta.py:build", None)
    assert len(require_taken(given.module(print), given.called, [(4,), (2,)])) == 2
    with pytest.raises(ConfigurationError, match="--input has 3 shapes"):
        require_taken(given.module(print), given.called, [(4,), (2,), (2,)])
