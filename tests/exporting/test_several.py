"""Models of several inputs: files that take each input by its name, in every precision, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from edgekd import api
from edgekd.artefacts import Format
from edgekd.bundle.preprocess import PREPROCESS, Preprocess
from edgekd.cli.main import main
from edgekd.errors import ConfigurationError, UsageError
from edgekd.events import SilentEvents
from edgekd.exporting.model_argument import given_model
from edgekd.exporting.model_inputs import model_inputs
from edgekd.exporting.naming import shapes_of
from edgekd.store.schema import read_record
from edgekd.students.unpacking import unpack_inputs
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.named_inputs import NamedInput, pack, unpack
from edgekd.teachers.binding import bind
from edgekd.teachers.torch import TorchTeacher

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


class WithWords(PictureAndNumbers):
    def __init__(self):
        super().__init__()
        self.words, self.of_words = nn.Embedding(50, 8), nn.Linear(8, 5)

    def forward(self, picture, numbers, words, mask):
        mask = mask.unsqueeze(2).float()
        mean = (self.words(words) * mask).sum(1) / mask.sum(1)
        return super().forward(picture, numbers) + self.of_words(mean)


def both():
    torch.manual_seed(0)
    return PictureAndNumbers().eval()


def words():
    torch.manual_seed(0)
    return WithWords().eval()
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


@pytest.fixture
def samples(folder):
    drawn = np.random.default_rng(0)
    arrays = {
        "picture": drawn.standard_normal((96, 3, 8, 8)).astype(np.float32),
        "numbers": drawn.random((96, 4)),
        "words": drawn.integers(0, 50, (96, 6)),
        "mask": (np.arange(6) < drawn.integers(1, 7, (96, 1))).astype(np.int64),
        "y": np.arange(96) % 5,
    }
    np.savez(folder / "several.npz", **arrays)
    return arrays


def answered(bundle) -> str:
    """What the bundle's own example prints."""
    done = subprocess.run([sys.executable, str(bundle / "example.py")], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.runtime
def test_files_of_all_formats_answer_as_the_model(both, folder):
    answer = api.export_model(both, output="out", shape=[(3, 8, 8), (4,)], events=SilentEvents())
    assert [(row.format, row.outcome, row.detail) for row in answer.files] == [(form, "written", "") for form in Format]
    assert all(row.parity.agree == row.parity.samples == 16 for row in answer.files)
    for form in Format:
        stated = read_record(folder / "out" / form.value / PREPROCESS, Preprocess)
        assert [(one.name, one.dtype, one.shape) for one in stated.inputs] == [
            ("picture", "float32", (1, 3, 8, 8)), ("numbers", "float32", (1, 4)),
        ]  # fmt: skip
        assert answered(folder / "out" / form.value).startswith("class ")
    graph = onnx.load(folder / "out" / "onnx" / "model.onnx").graph
    assert [value.name for value in graph.input] == ["picture", "numbers"]
    assert "Split" not in {node.op_type for node in graph.node}


@pytest.mark.slow
@pytest.mark.runtime
def test_they_are_quantized_and_scored_with_ids_among_them(both, samples, folder):
    model, precisions = "with_numbers.py:words", ["int8", "dynamic-int8", "float16"]
    answer = api.export_model(model, output="out", data="several.npz", precisions=precisions, events=SilentEvents())
    assert [(row.outcome, row.detail) for row in answer.files] == [("written", "")] * 9
    module = given_model(model, None).module(print)
    with torch.no_grad():
        said = module(*(torch.from_numpy(np.asarray(a, np.float32 if a.dtype.kind == "f" else np.int64)) for a in [
            samples[name] for name in ("picture", "numbers", "words", "mask")
        ])).argmax(1)  # fmt: skip
    share = float((said.numpy() == samples["y"]).mean())
    assert answer.accuracy is not None
    assert abs(answer.accuracy - share) < 0.15  # of half the samples, which scored
    for row in answer.files:
        assert row.parity.agree >= row.parity.samples - 1
        assert abs(row.accuracy - answer.accuracy) < 0.1
        assert answered(row.bundle).startswith("class ")
    graph = onnx.load(folder / "out" / "onnx" / "int8" / "model.onnx").graph
    kinds = [value.type.tensor_type.elem_type for value in graph.input]
    assert kinds == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT32]
    operators = [node.op_type for node in graph.node]
    assert "Split" not in operators
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert len(quantized) > 4
    assert "edgekd_inputs" not in str(answer.lines())
    assert not any("--mean" in note for note in answer.notes)


@pytest.mark.slow
@pytest.mark.runtime
def test_they_are_converted_to_be_timed(both, folder):
    asked = ["bench", both, "--input", "3x8x8,4", "--backend", "onnxruntime/cpu", "--processes", "1", "-q"]
    assert main(asked) in (0, 6)  # 6: a busy machine


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize("by_name", [False, True])
def test_a_program_names_its_inputs(by_name, both, samples, folder):
    module = given_model("with_numbers.py:words", None).module(print)
    taken = {
        name: torch.from_numpy(values[:2]).float() if values.dtype.kind == "f" else torch.from_numpy(values[:2])
        for name, values in samples.items()
        if name != "y"
    }
    args, kwargs = ((), taken) if by_name else (tuple(taken.values()), {})
    free = {name: {0: torch.export.Dim("batch", min=1, max=64)} for name in taken}
    torch.export.save(torch.export.export(module, args, kwargs, dynamic_shapes=free), "words.pt2")
    assert [str(one) for one in given_model("words.pt2", None).inputs] == [
        "picture 3 x 8 x 8 float32", "numbers 4 float32", "words 6 int32", "mask 6 int32"
    ]  # fmt: skip
    for data, precision in ((None, "float32"), ("several.npz", "int8")):
        answer = api.export_model(
            "words.pt2", output="out", data=data, precisions=[precision], formats=["onnx"], events=SilentEvents()
        )
        assert [(row.outcome, row.detail) for row in answer.files] == [("written", "")]
    with pytest.raises(UsageError, match="--input differs from the inputs picture"):
        api.export_model("words.pt2", output="out", shape=(3, 8, 8), events=SilentEvents())


def test_a_teacher_is_another_one_if_names_change_places(both, folder):
    teacher = TorchTeacher.model_validate({"module": "with_numbers.py:both"}, context={"folder": folder})
    named = [NamedInput(name="picture", shape=(3, 8, 8)), NamedInput(name="numbers", shape=(4,))]
    digests = set()
    for order in (named, named[::-1]):
        spec = TaskSpec(name="t", input=InputSpec.of_named(order), head=HeadSpec(classes=5), data="0" * 64)
        bound = bind(teacher, spec)
        digests.add(bound.digest())
        assert bound.logits(torch.from_numpy(spec.input.random(0, 3))).shape == (3, 5)
    assert len(digests) == 2
    with pytest.raises(ConfigurationError, match="mean, std and resize are for one input"):
        bind(teacher.model_copy(update={"mean": (0.5,), "std": (0.5,)}), spec)


def test_a_forward_of_the_instance_is_refused(both):
    module = given_model(both, None).module(print)
    module.forward = lambda picture, numbers: picture.mean((1, 2, 3)) + numbers.mean(1)
    named = [NamedInput(name="picture", shape=(3, 8, 8)), NamedInput(name="numbers", shape=(4,))]
    with pytest.raises(ConfigurationError, match="has a forward of the instance"):
        unpack_inputs(module, InputSpec.of_named(named))


def test_a_mask_is_never_empty():
    named = [NamedInput(name="mask", shape=(3,), dtype="int32"), NamedInput(name="ids", shape=(2,), dtype="int32")]
    given = InputSpec.of_named(named)
    assert given.example(2).tolist() == [[1.0] * 5] * 2
    assert unpack(named, given.random(0, 64))[0][:, 0].min() == 1


def test_a_module_takes_its_inputs_packed(both):
    module = given_model(both, None).module(print)
    parts = (NamedInput(name="numbers", shape=(4,)), NamedInput(name="picture", shape=(3, 8, 8)))  # in another order
    picture, numbers = torch.randn(2, 3, 8, 8), torch.randn(2, 4)
    expected = module(picture, numbers)
    packed = torch.from_numpy(pack([numbers.numpy(), picture.numpy()]))
    names = set(module.state_dict())
    assert torch.equal(unpack_inputs(module, InputSpec.of_named(parts))(packed), expected)
    assert set(module.state_dict()) == names


def test_shapes_that_do_not_fit_are_reported(both):
    module = given_model(both, None).module(print)
    found = model_inputs(module, "both", ((3, 8, 8), (4,)), None)
    assert list(map(str, found)) == ["picture 3 x 8 x 8 float32", "numbers 4 float32"]
    with pytest.raises(ConfigurationError, match=r"takes 2 inputs \(picture, numbers\), and --input has 3 shapes"):
        model_inputs(module, "both", ((3, 8, 8), (4,), (2,)), None)
    with pytest.raises(ConfigurationError, match=r"can't take two samples picture 3 x 8 x 8 float32, numbers 5 float"):
        api.export_model(both, output="out", shape=[(3, 8, 8), (5,)], events=SilentEvents())
    with pytest.raises(UsageError, match="a shape an input expected"):
        shapes_of("3x8x8,")


@pytest.mark.parametrize(
    ("kept", "asked", "said"),
    [
        (["picture", "y"], {}, "has the arrays picture, y, and `both` takes picture, numbers"),
        (
            ["picture", "numbers", "y"],
            {"shape": [(3, 8, 8), (5,)]},
            "--input differs from the inputs picture 3 x 8 x 8",
        ),
        (["picture", "numbers", "y"], {"mean": (1.0,), "std": (1.0,)}, "--mean and --std are for one input"),
    ],
)
def test_data_that_does_not_fit_is_reported(both, samples, folder, kept, asked, said):
    np.savez(folder / "some.npz", **{name: samples[name] for name in kept})
    with pytest.raises((ConfigurationError, UsageError), match=said):
        api.export_model(both, output="out", data="some.npz", events=SilentEvents(), **asked)


def test_an_optional_input_may_have_a_shape(folder):
    (folder / "with_meta.py").write_text(WITH_META)
    given = given_model("with_meta.py:build", None)
    assert len(model_inputs(given.module(print), given.called, [(4,), (2,)], None)) == 2
    with pytest.raises(ConfigurationError, match="--input has 3 shapes"):
        model_inputs(given.module(print), given.called, [(4,), (2,), (2,)], None)
