"""Description of a TFLite image classifier: what MediaPipe Tasks reads, and that the model stays the model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgekd.artefacts import Backend
from edgekd.export._protocol import ExportOptions
from edgekd.export.tflite.description import LABELS, can_describe, describe
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.export.tflite.flatbuffer import metadata_of, read_model
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import HeadSpec, InputSpec

BACKEND = Backend.model_validate("litert/xnnpack")
NAMES = (*(f"class {number}" for number in range(9)), "Größe\nXL")
RAW = ExportOptions(input="uint8", layout="nhwc")


class Table:
    """Reader of one flatbuffers table by the numbers of its fields in metadata_schema.fbs."""

    def __init__(self, data: bytes, at: int) -> None:
        from flatbuffers import table

        self.table = table.Table(bytearray(data), at)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, int.from_bytes(data[:4], "little"))

    def _at(self, field: int) -> int:
        offset = int(self.table.Offset(4 + 2 * field))
        assert offset, f"no field {field}"
        return offset + int(self.table.Pos)

    def text(self, field: int) -> str:
        return bytes(self.table.String(self._at(field))).decode()

    def byte(self, field: int) -> int:
        return int(self.table.Bytes[self._at(field)])

    def inner(self, field: int) -> Table:
        return Table(self.table.Bytes, self.table.Indirect(self._at(field)))

    def first(self, field: int) -> Table:
        assert self.table.VectorLen(self._at(field) - self.table.Pos) == 1
        return Table(self.table.Bytes, self.table.Indirect(self.table.Vector(self._at(field) - self.table.Pos)))

    def floats(self, field: int) -> list[float]:
        offset = self._at(field) - self.table.Pos
        start = self.table.Vector(offset)
        return list(np.frombuffer(bytes(self.table.Bytes), np.float32, self.table.VectorLen(offset), start).tolist())


def named(student: Student, **changes: Any) -> Student:
    task = student.task.but(head=HeadSpec(classes=10, labels=NAMES), **changes)
    return student.but(task=task)


def answer(path: Path, image: NDArray[np.uint8]) -> NDArray[Any]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(1, 2, 0)[None])
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


@pytest.mark.runtime
def test_both_ends_are_described_and_the_answers_stay(
    calibrated: dict[Precision, Student], samples: NDArray[np.uint8], tmp_path: Path
) -> None:
    student, path = named(calibrated[Precision.INT8]), tmp_path / "model.tflite"
    TfliteExporter().export(student, RAW, BACKEND, None, path)
    before = answer(path, samples[0])
    describe(path, student.task, RAW)
    written = path.read_bytes()
    assert np.array_equal(answer(path, samples[0]), before)
    with zipfile.ZipFile(path) as attached:
        assert attached.namelist() == [LABELS]
        assert attached.read(LABELS).decode().split("\n") == [*NAMES[:9], "Größe XL"]
    data = metadata_of(read_model(written))["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    model = Table.root(data)
    assert model.text(0) == "squares"
    image, logits = model.first(3).first(2), model.first(3).first(3)
    assert image.inner(3).byte(0) == 2  # ImageProperties
    assert image.inner(3).inner(1).byte(0) == 1  # RGB
    assert image.first(4).byte(0) == 1  # NormalizationOptions
    assert (image.first(4).inner(1).floats(0), image.first(4).inner(1).floats(1)) == ([0.0], [1.0])  # inside the graph
    assert (image.inner(5).floats(0), image.inner(5).floats(1)) == ([255.0], [0.0])
    assert logits.first(6).text(0) == LABELS
    assert logits.first(6).byte(2) == 2  # TENSOR_AXIS_LABELS
    describe(path, student.task, RAW)
    assert path.read_bytes() == written


@pytest.mark.runtime
def test_normalisation_that_is_left_to_the_caller_is_stated(coloured: Student, tmp_path: Path) -> None:
    path, options = tmp_path / "model.tflite", ExportOptions(input="float32", layout="nhwc", preprocess="stated")
    TfliteExporter().export(coloured, options, BACKEND, None, path)
    describe(path, coloured.task, options)
    image = Table.root(metadata_of(read_model(path.read_bytes()))["TFLITE_METADATA"]).first(3).first(2)
    assert image.first(4).inner(1).floats(0) == [120.5, 110.0, 100.0]
    assert image.first(4).inner(1).floats(1) == [60.0, 61.0, 62.0]
    assert image.inner(5).floats(0) == pytest.approx([134.5 / 60, 145 / 61, 155 / 62])
    assert not zipfile.is_zipfile(path)  # the task has no names of classes
    mixed = coloured.task.but(input=coloured.task.input.but(mean=(120.0,)))
    describe(path, mixed, options)
    image = Table.root(metadata_of(read_model(path.read_bytes()))["TFLITE_METADATA"]).first(3).first(2)
    assert image.first(4).inner(1).floats(0) == [120.0] * 3
    assert image.first(4).inner(1).floats(1) == [60.0, 61.0, 62.0]


def test_what_the_schema_has_no_words_for_is_not_described(calibrated: dict[Precision, Student]) -> None:
    task = calibrated[Precision.FLOAT32].task
    assert can_describe(task, RAW)
    assert can_describe(task, RAW.but(input="float32", preprocess="stated"))
    assert can_describe(task.but(input=InputSpec(shape=(1, 16, 16))), RAW)
    assert not can_describe(task, RAW.but(layout="nchw"))
    assert not can_describe(task, RAW.but(batch="dynamic"))
    assert not can_describe(task, RAW.but(input="int8"))
    assert not can_describe(task, RAW.but(preprocess="stated")), "the caller quantizes"
    assert not can_describe(task.but(input=InputSpec(shape=(4, 16, 16))), RAW)
    assert not can_describe(task.but(input=InputSpec(shape=(3, 400))), RAW)
    assert not can_describe(task.but(input=InputSpec(shape=(1, 8, 8), raw_range=(0.0, 16.0))), RAW)
    assert not can_describe(task.but(input=InputSpec(shape=(3, 16, 16), raw_dtype="float32")), RAW)
    assert not can_describe(task.but(more=(HeadSpec(name="other", kind="multilabel", classes=2),)), RAW)
