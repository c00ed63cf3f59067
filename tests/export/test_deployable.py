"""When normalisation is free, and what no format can have."""

from __future__ import annotations

import pytest

from edgekd.artefacts import Backend, Format
from edgekd.export._protocol import ExportOptions
from edgekd.export.io_wrapper import IOWrapper, input_affine, problems_of
from edgekd.ir.encoding import Annotations, Encoding
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

ORT, LITERT = Backend.model_validate("onnxruntime/cpu"), Backend.model_validate("litert/xnnpack")


def _student(mean: tuple[float, ...], std: tuple[float, ...], encoding: Encoding | None, **spec: object) -> Student:
    given = InputSpec.model_validate({"shape": (3, 8, 8), "mean": mean, "std": std, **spec})
    task = TaskSpec(name="t", input=given, head=HeadSpec(classes=2), data="0" * 64)
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 1})
    student = new_student(family, family.space(task).at(0), task, seed=0)
    if encoding is None:
        return student
    weights = {"head.weight": Encoding(bits=8, scale=(0.1,), zero_point=(0,))}
    annotations = Annotations(precision=Precision.INT8, weights=weights, activations={"input": encoding})
    return student.but(annotations=annotations)


def _encoding(scale: float, zero_point: int) -> Encoding:
    return Encoding(bits=8, scale=(scale,), zero_point=(zero_point,))


@pytest.mark.parametrize(("dtype", "offset"), [("uint8", -2.0), ("int8", 0.0), ("float32", -2.0)])
def test_affine_takes_the_files_values_to_what_the_student_sees(dtype: str, offset: float) -> None:
    student = _student((128.0,), (64.0,), None)
    affine = input_affine(student.task, ExportOptions.model_validate({"input": dtype}))
    assert affine.channel(2) == (1 / 64, offset)
    assert affine.is_scalar


def test_channels_that_differ_stay_apart() -> None:
    student = _student((1.0, 2.0, 3.0), (2.0,), None)
    affine = input_affine(student.task, ExportOptions())
    assert [affine.channel(i) for i in range(3)] == [(0.5, -0.5), (0.5, -1.0), (0.5, -1.5)]
    assert not affine.is_scalar


@pytest.mark.parametrize(
    ("mean", "encoding", "free"),
    [
        (128.0, _encoding(1 / 64, 0), True),
        (127.5, _encoding(1 / 64, 0), True),  # half a raw step off, as calibration chose
        (127.5, _encoding(1 / 64, -1), True),
        (128.0, _encoding(1 / 64, 2), False),
        (128.0, _encoding(1 / 63, 0), False),
    ],
)
def test_integers_are_the_input_where_the_encoding_is_the_normalisation(
    mean: float, encoding: Encoding, free: bool
) -> None:
    student = _student((mean,), (64.0,), encoding)
    for dtype in ("uint8", "int8"):
        options = ExportOptions.model_validate({"input": dtype})
        assert IOWrapper(student, options).integers_are_the_input is free
    assert not IOWrapper(student, ExportOptions(input="float32")).integers_are_the_input


def test_a_channels_own_mean_needs_operators() -> None:
    student = _student((128.0, 127.0, 128.0), (64.0,), _encoding(1 / 64, 0))
    assert not IOWrapper(student, ExportOptions(input="uint8")).integers_are_the_input
    assert IOWrapper(student, ExportOptions(input="float32")).input_quantizer is None


def test_float_values_are_quantized_in_raw_units_where_the_zero_point_is_whole() -> None:
    student = _student((128.0,), (64.0,), _encoding(1 / 64, 0))
    assert IOWrapper(student, ExportOptions()).input_quantizer == (1.0, -128)
    odd = _student((127.5,), (64.0,), _encoding(1 / 64, 0))
    assert IOWrapper(odd, ExportOptions()).input_quantizer is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "int8"}, "output int8 needs precision int8"),
        ({"input": "uint8", "preprocess": "stated"}, "needs precision int8; the precision is float32"),
    ],
)
def test_what_a_float_student_cant_have(options: dict[str, str], words: str) -> None:
    problems = problems_of(_student((0.0,), (1.0,), None), ExportOptions.model_validate(options), Format.ONNX, ORT)
    assert len(problems) == 1
    assert words in problems[0].message
    assert problems[0].remedy


def test_raw_floats_cant_be_given_as_bytes() -> None:
    student = _student((0.0,), (1.0,), None, raw_dtype="float32")
    problems = problems_of(student, ExportOptions(input="uint8"), Format.ONNX, ORT)
    assert "raw values are uint8; here they are float32" in problems[0].message


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.DYNAMIC_INT8])
def test_encodings_are_never_invented(precision: Precision) -> None:
    student = _student((0.0,), (1.0,), None).but(annotations=Annotations(precision=precision))
    assert "without enc" in problems_of(student, ExportOptions(), Format.TFLITE, LITERT)[0].message
