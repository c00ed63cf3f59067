"""Transformers in all three formats: token ids with an embedding, and a vision transformer behind its stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.reference import reference_module
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import check_parity
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student
from edgekd.students.analysis import analyse
from edgekd.students.student import new_student
from edgekd.students.transformer import Transformer
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec, TextSpec

EXPORTERS: dict[str, Exporter] = {
    "litert/xnnpack": TfliteExporter(),
    "onnxruntime/cpu": OnnxExporter(),
    "openvino/cpu": OpenvinoExporter(),
}
VOCABULARY, TOKENS = 300, 8
TEXT = InputSpec(
    name="tokens", shape=(TOKENS,), raw_dtype="int32", raw_range=(0.0, VOCABULARY - 1.0),
    text=TextSpec(vocabulary=VOCABULARY, padding=0, tokenizer="0" * 64),
)  # fmt: skip
PICTURE = InputSpec(shape=(1, 8, 8), mean=(100.0,), std=(60.0,))


def student_of(given: InputSpec) -> Student:
    """Untrained, of one block, with weights large enough for attention to choose."""
    spec = TaskSpec(name="t", input=given, head=HeadSpec(classes=4), data="0" * 64)
    family = Transformer.model_validate(
        {"space": {"depth": 1, "heads": 2, "width": 16, "mlp_ratio": 2, "patch": [2], "head_width": 8}}
    )
    student, generator = new_student(family, family.space(spec).at(0), spec, seed=0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in student.module.named_parameters():
            if "norm" in name and name.endswith("weight"):  # as training leaves them: converters merge such scales
                torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    return student


def ids(count: int) -> np.ndarray:
    """Of texts of 1 to 8 tokens."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, VOCABULARY, (count, TOKENS))
    return np.where(np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (count, 1)), drawn, 0).astype(np.int32)


@pytest.fixture(scope="module")
def reader() -> Student:
    return student_of(TEXT)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.DYNAMIC_INT8, Precision.INT8])
def test_a_table_has_integers_with_one_scale_and_the_student_their_values(
    reader: Student, precision: Precision
) -> None:
    made = calibrate(reader, ids(16), precision, "minmax")
    name = "encoder.embed.table.weight"
    encoding, table = made.annotations.weights[name], made.module.get_parameter(name)
    assert (len(encoding.scale), encoding.axis) == (1, None)
    steps = table / encoding.scale[0]
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert int(steps.abs().max().round()) == 127
    rows = torch.from_numpy(ids(8))
    if precision is Precision.DYNAMIC_INT8:
        torch.testing.assert_close(reference_module(made)(rows), reader.module(rows), atol=0.1, rtol=0.1)
    saved = 3 * VOCABULARY * 16
    assert analyse(reader, Precision.FLOAT32).weight_bytes - analyse(reader, precision).weight_bytes > saved


@pytest.mark.runtime
@pytest.mark.slow
@pytest.mark.parametrize("backend", list(EXPORTERS))
def test_texts_are_answered_alike_in_files_that_take_ids(
    backend: str, reader: Student, this_computer: DeviceSession, tmp_path: Path
) -> None:
    where, options, sizes = Backend.model_validate(backend), ExportOptions(), {}
    for precision in (Precision.FLOAT32, Precision.DYNAMIC_INT8, Precision.INT8):
        made = calibrate(reader, ids(32), precision, "minmax")
        path = tmp_path / f"{precision.value}{EXPORTERS[backend].format.suffix}"
        artefact = EXPORTERS[backend].export(made, options, where, None, path)
        report = check_parity(
            this_computer, Job(artefact=artefact, backend=where), made, ids(24), options, tmp_path / "scratch"
        )
        assert report.holds, f"{precision}: {report.detail}"
        weights = path.with_suffix(".bin") if where.runtime == "openvino" else path
        sizes[precision] = weights.stat().st_size
    table = VOCABULARY * 16
    assert sizes[Precision.FLOAT32] - sizes[Precision.DYNAMIC_INT8] > 3 * table, sizes
    assert sizes[Precision.FLOAT32] - sizes[Precision.INT8] > 2 * table, sizes
    if where.runtime == "litert":  # all layers are in 8 bits, those behind a LayerNorm too
        assert sizes[Precision.DYNAMIC_INT8] < 1.05 * sizes[Precision.INT8], sizes


@pytest.mark.runtime
@pytest.mark.slow
def test_a_vision_transformer_has_an_int8_file(this_computer: DeviceSession, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (32, *PICTURE.shape), np.uint8)
    backend, options = Backend.model_validate("onnxruntime/cpu"), ExportOptions(input="uint8")
    made = calibrate(student_of(PICTURE), raw, Precision.INT8, "minmax")
    artefact = OnnxExporter().export(made, options, backend, None, tmp_path / "model.onnx")
    report = check_parity(this_computer, Job(artefact=artefact, backend=backend), made, raw, options, tmp_path / "s")
    assert report.holds, report.detail
