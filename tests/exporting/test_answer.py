"""What an export reports, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Format
from edgekd.exporting.answer import ExportedFile, ModelExportAnswer
from edgekd.ir.numerics import Precision
from edgekd.store.certificate import Parity

BUNDLE = Path("out/onnx")


def row(outcome: str, form: Format = Format.ONNX, **fields: object) -> ExportedFile:
    given = {"format": form, "precision": Precision.INT8, "backend": "onnxruntime/cpu", "outcome": outcome, **fields}
    return ExportedFile.model_validate(given)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row("written", bundle=BUNDLE), row("refused"), row("drops"), row("passed over")], 0),
        ([row("written", bundle=BUNDLE), row("refused", Format.TFLITE)], 3),
        ([row("drops"), row("refused")], 5),
        ([row("differs")], 7),
        ([row("over budget", bundle=BUNDLE)], 5),
        ([row("unstable", bundle=BUNDLE)], 6),
    ],
)
def test_the_exit_code_is_that_of_a_format_without_its_file(rows, code):
    assert ModelExportAnswer(model="m", files=tuple(rows), max_drop=0.01).exit_code == code


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row("written", bundle=BUNDLE), row("refused")], 3),
        ([row("written", bundle=BUNDLE), row("refused"), row("differs")], 7),
        ([row("written", bundle=BUNDLE), row("written", Format.TFLITE, bundle=BUNDLE)], 0),
        ([row("over budget", bundle=BUNDLE), row("written", bundle=BUNDLE)], 5),
    ],
)
def test_every_precision_that_was_asked_for_is_wanted(rows, code):
    assert ModelExportAnswer(model="m", files=tuple(rows)).exit_code == code


def test_the_digest_of_a_certificate_is_reported():
    certified = row("written", bundle=BUNDLE, certificate="certified  3 ms", sha256="a" * 64)
    lines = ModelExportAnswer(model="m:build", files=(certified,)).lines()
    assert f"digest    {'a' * 64}  out/onnx" in lines
    assert lines[-1] == "next:     edgekd verify out/onnx"


def test_a_file_is_reported_beside_the_float_model():
    parity = Parity(samples=64, agree=63, largest=1.0, unit="steps")
    written = row("written", bundle=BUNDLE, size_bytes=2048, accuracy=0.9, parity=parity)
    answer = ModelExportAnswer(model="m:build", metric="top1", data="d", samples=9, accuracy=0.925, files=(written,))
    lines = answer.lines()
    assert lines[0] == "model     m:build: 92.5% in PyTorch"
    assert lines[1] == "data      d; top-1 of 9 test samples"
    assert "2 KiB . 90.0% (-2.5) . parity 63 of 64 . out/onnx" in lines[2]
    assert lines[-1] == "next:     edgekd bench out/onnx/model.onnx"


def test_why_there_is_no_file_is_reported():
    refused = row("refused", detail="`a:softmax` has no integer form\nmore")
    dropped = row("drops", chosen_by=0.8, detail="10.0 points below 90.0%, and 1 are allowed")
    assert refused.line(0.9).endswith("refused: `a:softmax` has no integer form")
    assert "80.0% validation . drops: 10.0 points below 90.0%" in dropped.line(0.9)
