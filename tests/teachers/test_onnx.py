"""ONNX teachers, in the real runtime."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.teachers.binding import bind
from edgekd.teachers.onnx import OnnxTeacher
from edgekd.testing.contracts.teacher import TeacherContract

pytestmark = pytest.mark.runtime


class Last(nn.Module):
    """Takes channels last."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.module(batch.permute(0, 3, 1, 2))


@pytest.fixture(scope="session")
def files(tmp_path_factory, teacher_folder):
    from importlib.util import module_from_spec, spec_from_file_location

    from edgekd.students.weights import load_weights

    found = spec_from_file_location("teacher_for_onnx", teacher_folder / "small_teacher.py")
    assert found is not None
    assert found.loader is not None
    source = module_from_spec(found)
    found.loader.exec_module(source)
    module = source.small().eval()
    load_weights(module, teacher_folder / "small.safetensors")
    folder = tmp_path_factory.mktemp("onnx")
    batch = {0: torch.export.Dim("batch")}
    for name, model, shape, dynamic in (
        ("any", module, (2, 3, 8, 8), (batch,)),
        ("pairs", module, (2, 3, 8, 8), None),
        ("last", Last(module).eval(), (2, 8, 8, 3), (batch,)),
    ):
        torch.onnx.export(
            model,
            (torch.zeros(shape),),
            str(folder / f"{name}.onnx"),
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    return folder


class TestDynamicBatch(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: OnnxTeacher(file=files / "any.onnx")


class TestFixedBatch(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: OnnxTeacher(file=files / "pairs.onnx")


class TestChannelsLast(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: OnnxTeacher(file=files / "last.onnx", layout="nhwc", mean=(120.0,), std=(60.0,))


@pytest.mark.parametrize(
    "given", [{"file": "any.onnx"}, {"file": "pairs.onnx"}, {"file": "last.onnx", "layout": "nhwc"}]
)
def test_answers_are_the_modules(files, spec, module, given):
    batch = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    teacher = bind(OnnxTeacher.model_validate(given, context={"folder": files}), spec)
    with torch.no_grad():
        expected = module((batch.float() - 120) / 60)
    assert torch.allclose(teacher.logits(batch), expected, atol=1e-4)


def test_raw_input_is_left_raw(files, spec, module):
    batch = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        expected = module(batch)
    assert torch.allclose(
        bind(OnnxTeacher(file=files / "any.onnx", input="raw"), spec).logits(batch), expected, atol=1e-4
    )


def test_probabilities_are_made_logits_where_it_is_written(tmp_path, spec, module):
    whole = torch.nn.Sequential(module, torch.nn.Softmax(1)).eval()
    torch.onnx.export(whole, (torch.zeros(1, 3, 8, 8),), str(tmp_path / "soft.onnx"), dynamo=True, verbose=False)
    with pytest.raises(ConfigurationError, match="answers: probabilities"):
        bind(OnnxTeacher(file=tmp_path / "soft.onnx", input="raw"), spec)
    batch = torch.rand(3, 3, 8, 8)
    found = bind(OnnxTeacher(file=tmp_path / "soft.onnx", input="raw", answers="probabilities"), spec).logits(batch)
    with torch.no_grad():
        assert torch.allclose(found.softmax(1), module(batch).softmax(1), atol=1e-5)


def test_a_file_of_pixels_must_be_given_pixels(tmp_path, spec):
    class Pixels(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3)) @ torch.ones(3, 4)

    example = (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),)
    torch.onnx.export(Pixels().eval(), example, str(tmp_path / "pixels.onnx"), dynamo=True, verbose=False)
    with pytest.raises(ConfigurationError, match="write `input: raw`"):
        bind(OnnxTeacher(file=tmp_path / "pixels.onnx"), spec)
    teacher = bind(OnnxTeacher(file=tmp_path / "pixels.onnx", input="raw"), spec)
    assert torch.allclose(teacher.logits(torch.full((1, 3, 8, 8), 200.0)), torch.full((1, 4), 600.0))


def test_feeding_is_part_of_the_digest(files, spec):
    one, two = OnnxTeacher(file=files / "any.onnx"), OnnxTeacher(file=files / "any.onnx", input="raw")
    assert bind(one, spec).digest() != bind(two, spec).digest()


def test_a_wrong_layout_is_reported(files, spec):
    with pytest.raises(ConfigurationError, match="write `layout: nhwc`"):
        bind(OnnxTeacher(file=files / "last.onnx"), spec)


def test_images_are_resized_where_the_file_takes_others(files, spec, module):
    larger = spec.but(input=spec.input.but(shape=(3, 16, 16)))
    with pytest.raises(ConfigurationError, match=r"write `resize: \[8, 8\]`"):
        bind(OnnxTeacher(file=files / "pairs.onnx"), larger)
    teacher = bind(OnnxTeacher(file=files / "pairs.onnx", resize=(8, 8)), larger)
    with torch.no_grad():
        expected = module((torch.full((2, 3, 8, 8), 90.0) - 120) / 60)
    assert torch.allclose(teacher.logits(torch.full((2, 3, 16, 16), 90.0)), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_fed_too(tmp_path, spec, dtype):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    example = (torch.zeros(2, 3, 8, 8, dtype=dtype),)
    torch.onnx.export(
        copy.deepcopy(module).to(dtype), example, str(tmp_path / "other.onnx"), dynamo=True, verbose=False
    )
    batch = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = module((batch - 120) / 60)
    found = bind(OnnxTeacher(file=tmp_path / "other.onnx"), spec).logits(batch)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-2)


def test_a_wrong_output_is_reported(files, spec):
    with pytest.raises(UnknownName, match="no output `probabilities`"):
        bind(OnnxTeacher(file=files / "any.onnx", output="probabilities"), spec)


def test_a_file_that_is_no_model_is_refused(tmp_path, spec):
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        bind(OnnxTeacher(file=tmp_path / "a.onnx"), spec)
