"""TFLite teachers, in the real runtime, on files that edgekd's own exporter wrote."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.export._protocol import ExportOptions
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.teachers.binding import bind
from edgekd.teachers.tflite import TfliteTeacher
from edgekd.testing.contracts.teacher import TeacherContract

pytestmark = pytest.mark.runtime

BACKEND = Backend.model_validate("litert/xnnpack")
FILES = {
    "raw": (Precision.FLOAT32, {}),
    "normalised": (Precision.FLOAT32, {"preprocess": "stated"}),
    "first": (Precision.FLOAT32, {"layout": "nchw"}),
    "fours": (Precision.FLOAT32, {"batch": 4}),
    "any": (Precision.FLOAT32, {"batch": "dynamic"}),
    "bytes": (Precision.INT8, {"input": "uint8"}),
    "integers": (Precision.INT8, {"input": "int8", "output": "int8"}),
}
"""What each file is exported with."""


def spec_of() -> TaskSpec:
    return TaskSpec(
        name="small",
        input=InputSpec(shape=(3, 8, 8), mean=(120.0,), std=(60.0,)),
        head=HeadSpec(classes=4),
        data="0" * 64,
    )


@pytest.fixture(scope="session")
def small_student():
    family = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 1]}, "stages": 2})
    return new_student(family, family.space(spec_of()).at(0), spec_of(), seed=0)


@pytest.fixture(scope="session")
def files(tmp_path_factory, small_student) -> Path:
    folder = tmp_path_factory.mktemp("tflite")
    samples = np.random.default_rng(0).integers(0, 256, (32, 3, 8, 8), dtype=np.uint8)
    made = {p: calibrate(small_student, samples, p, "minmax") for p in (Precision.FLOAT32, Precision.INT8)}
    for name, (precision, written) in FILES.items():
        TfliteExporter().export(
            made[precision], ExportOptions.model_validate(written), BACKEND, None, folder / f"{name}.tflite"
        )
    return folder


@pytest.fixture
def batch():
    return torch.randint(0, 256, (21, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def expected(small_student, batch):
    with torch.no_grad():
        return small_student.module((batch.float() - 120) / 60)


class TestFloat(TeacherContract):
    @pytest.fixture
    def spec(self):
        return spec_of()

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: TfliteTeacher(file=files / "raw.tflite", input="raw")


class TestIntegers(TeacherContract):
    @pytest.fixture
    def spec(self):
        return spec_of()

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: TfliteTeacher(file=files / "integers.tflite")


class TestChannelsFirst(TeacherContract):
    @pytest.fixture
    def spec(self):
        return spec_of()

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: TfliteTeacher(file=files / "first.tflite", input="raw", layout="nchw")


GIVEN = [
    {"file": "raw.tflite", "input": "raw"},
    {"file": "normalised.tflite"},
    {"file": "normalised.tflite", "mean": [120.0], "std": [60.0]},
    {"file": "first.tflite", "input": "raw", "layout": "nchw"},
    {"file": "fours.tflite", "input": "raw"},
    {"file": "any.tflite", "input": "raw"},
]


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: " ".join(map(str, given.values())))
def test_answers_are_the_students(files, batch, expected, given):
    teacher = bind(TfliteTeacher.model_validate(given, context={"folder": files}), spec_of())
    torch.testing.assert_close(teacher.logits(batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["bytes", "integers"])
def test_integer_ends_are_fed_and_read_by_their_scales(files, batch, expected, name):
    teacher = bind(TfliteTeacher(file=files / f"{name}.tflite"), spec_of())
    answers = teacher.logits(batch)
    assert (answers - expected).abs().max() < 0.1 * expected.abs().max()
    assert (answers.argmax(1) == expected.argmax(1)).float().mean() > 0.8
    with pytest.raises(ConfigurationError, match="write `input: normalised`"):
        bind(TfliteTeacher(file=files / f"{name}.tflite", input="raw"), spec_of())


def converted(module: nn.Module, path: Path) -> Path:
    """By litert-torch alone: what a person may have."""
    litert_torch = pytest.importorskip("litert_torch")
    litert_torch.convert(module.eval(), (torch.zeros(1, 8, 8, 3),)).export(str(path))
    return path


class Sliced(nn.Module):
    """A zero-padded shortcut, whose slice keeps the batch it was converted with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.permute(0, 3, 1, 2)
        shortcut = nn.functional.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        return self.head((self.body(images) + shortcut).relu().mean((2, 3)))


class Softened(Sliced):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).softmax(1)


def test_a_graph_that_answers_wrongly_in_a_larger_batch_is_run_in_its_own(tmp_path, batch):
    module = Sliced()
    teacher = bind(TfliteTeacher(file=converted(module, tmp_path / "sliced.tflite"), input="raw"), spec_of())
    with torch.no_grad():
        expected = torch.cat([module(one) for one in batch.permute(0, 2, 3, 1).float().split(1)])
    torch.testing.assert_close(teacher.logits(batch), expected, atol=1e-3, rtol=1e-4)


def test_most_graphs_are_run_in_larger_batches(files):
    teacher = bind(TfliteTeacher(file=files / "raw.tflite", input="raw"), spec_of())
    assert teacher._graph._batch > 1
    assert bind(TfliteTeacher(file=files / "fours.tflite", input="raw"), spec_of())._graph._own == 4


def test_probabilities_are_made_logits_where_it_is_written(tmp_path, batch):
    file = converted(Softened(), tmp_path / "soft.tflite")
    with pytest.raises(ConfigurationError, match="answers: probabilities"):
        bind(TfliteTeacher(file=file), spec_of())
    answers = bind(TfliteTeacher(file=file, answers="probabilities"), spec_of()).logits(batch)
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(len(batch)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"file": "raw.tflite", "layout": "nchw"}, "write `layout: nhwc`"),
        ({"file": "first.tflite"}, "write `layout: nchw`"),
        ({"file": "raw.tflite", "resize": [16, 16]}, r"write `resize: \[8, 8\]`"),
    ],
)
def test_images_that_do_not_fit_are_reported(files, given, words):
    with pytest.raises(ConfigurationError, match=words):
        bind(TfliteTeacher.model_validate(given, context={"folder": files}), spec_of())


def test_other_channels_are_reported(files):
    grey = spec_of().but(input=InputSpec(shape=(1, 8, 8), mean=(120.0,), std=(60.0,)))
    with pytest.raises(ConfigurationError, match=r"takes 8 x 8 x 3 .* is given 8 x 8 x 1"):
        bind(TfliteTeacher(file=files / "raw.tflite"), grey)


def test_larger_images_are_resized_where_it_is_asked(files):
    large = spec_of().but(input=InputSpec(shape=(3, 16, 16), mean=(120.0,), std=(60.0,)))
    teacher = bind(TfliteTeacher(file=files / "raw.tflite", input="raw", resize=(8, 8)), large)
    assert teacher.logits(torch.rand(3, 3, 16, 16)).shape == (3, 4)


def test_a_wrong_output_is_reported(files):
    with pytest.raises(UnknownName, match="no output `probabilities`"):
        bind(TfliteTeacher(file=files / "raw.tflite", output="probabilities"), spec_of())


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_file_that_is_no_model_is_refused(files, tmp_path, damage):
    whole = (files / "raw.tflite").read_bytes()
    (tmp_path / "a.tflite").write_bytes({"text": b"not a model", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(ConfigurationError, match="can't be loaded by LiteRT"):
        bind(TfliteTeacher(file=tmp_path / "a.tflite"), spec_of())


def test_digest_is_of_the_file_and_of_how_it_is_fed(files):
    made = [
        TfliteTeacher.model_validate(given, context={"folder": files})
        for given in (
            {"file": "raw.tflite"},
            {"file": "raw.tflite", "input": "raw"},
            {"file": "raw.tflite", "mean": [1.0], "std": [2.0]},
            {"file": "first.tflite"},
        )
    ]
    assert len({teacher.digest() for teacher in made}) == 4
    assert made[0].bound(spec_of()).digest() != made[0].digest()


DATA = Path(os.environ.get("EDGEKD_DATA", "/nowhere"))


@pytest.mark.skipif("EDGEKD_DATA" not in os.environ, reason="EDGEKD_DATA names no folder with the MLPerf Tiny networks")
@pytest.mark.parametrize(("name", "right"), [("float32", 334), ("int8", 342)])
def test_networks_of_mlperf_tiny_answer_as_they_should(name, right):
    """Of 400 images; of all 10,000 it is 87.19 % and 86.97 %, as their authors' files do elsewhere."""
    packed = np.load(DATA / "cifar10-tiny.npz")
    spec = TaskSpec(
        name="cifar10",
        input=InputSpec(shape=(3, 32, 32), mean=(120.0,), std=(60.0,)),
        head=HeadSpec(classes=10),
        data="0" * 64,
    )
    file = DATA / "mlperf-tiny" / f"ic_resnet8_{name}.tflite"
    teacher = bind(TfliteTeacher(file=file, input="raw", answers="probabilities"), spec)
    answers = teacher.logits(torch.from_numpy(packed["x_test"].transpose(0, 3, 1, 2).copy()))
    assert int((answers.argmax(1).numpy() == packed["y_test"]).sum()) == right
