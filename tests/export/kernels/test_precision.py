"""A file says what it computes in."""

from __future__ import annotations

import pytest

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError
from edgekd.export.kernels.precision import precision_of_file
from edgekd.ir.numerics import Precision
from tests.export.kernels.test_read import exported


@pytest.mark.runtime
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("format_", [Format.TFLITE, Format.ONNX, Format.OPENVINO])
def test_every_precision_is_stated_in_every_format(calibrated, precision, format_, tmp_path):
    try:
        artefact = exported(calibrated[precision], format_, tmp_path)
    except ConfigurationError as error:
        pytest.skip(f"{format_.value} has no such file: {error.message.splitlines()[0]}")
    assert precision_of_file(artefact) is precision


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 40)
    with pytest.raises(ConfigurationError, match=f"m{suffix}"):
        precision_of_file(Artefact(path=path, format=Format.of(path), sha256="0" * 64, size_bytes=1))
