"""The Openvino exporter: its contract on the real runtime, and what is special to the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from edgekd.artefacts import Backend, Precision
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Fingerprint
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.openvino import OpenvinoExporter
from edgekd.students._protocol import Student
from edgekd.testing.contracts.exporter import ExporterContract

BACKEND = Backend.model_validate("openvino/cpu")


@pytest.mark.runtime
class TestOpenvinoExporter(ExporterContract):
    @pytest.fixture
    def make_exporter(self) -> Callable[[], Exporter]:
        return OpenvinoExporter

    @pytest.fixture
    def backend(self) -> Backend:
        return BACKEND

    @pytest.fixture
    def suffix(self) -> str:
        return ".xml"

    @pytest.fixture
    def students(self, calibrated: dict[Precision, Student]) -> dict[Precision, Student]:
        return calibrated

    @pytest.fixture
    def raw(self, samples: NDArray[Any]) -> NDArray[Any]:
        return samples

    @pytest.fixture
    def session(self, this_computer: DeviceSession) -> DeviceSession:
        return this_computer

    def test_eight_bit_weights_are_refused_where_products_saturate(
        self, calibrated: dict[Precision, Student], samples: NDArray[Any], saturating: Fingerprint, tmp_path: Path
    ) -> None:
        wide = calibrated[Precision.INT8]
        problems = OpenvinoExporter().check(wide, ExportOptions(), BACKEND, saturating)
        assert "saturate" in problems[0].message
        assert "7 bits" in problems[0].remedy
        narrow = calibrate(calibrated[Precision.FLOAT32], samples, Precision.INT8, "minmax", saturating, BACKEND)
        assert not OpenvinoExporter().check(narrow, ExportOptions(), BACKEND, saturating)

    def test_integer_ends_leave_no_layer_in_float(self, calibrated: dict[Precision, Student], tmp_path: Path) -> None:
        options = ExportOptions(input="uint8", output="uint8")
        path = tmp_path / "model.xml"
        OpenvinoExporter().export(calibrated[Precision.INT8], options, BACKEND, None, path)
        assert not [name for name in float_operators(path) if name.startswith(("Convolution", "FullyConnected"))]
