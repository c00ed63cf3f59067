"""The Openvino exporter: its contract on the real runtime, and what is special to the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from edgekd.agent.runtimes import open_runtime
from edgekd.artefacts import Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Fingerprint
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.onnx.exporter import onnx_model
from edgekd.export.openvino import OpenvinoExporter
from edgekd.ir.numerics import Precision
from edgekd.ir.support import precisions_of
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
    def students(
        self, calibrated: dict[Precision, Student], samples: NDArray[Any], this_computer: DeviceSession
    ) -> dict[Precision, Student]:
        """Static int8 for this computer: on one without 8-bit dot products, weights keep to 7 bits."""
        plain, here = calibrated[Precision.FLOAT32], this_computer.describe()
        own = calibrate(plain, samples, Precision.INT8, "minmax", here, BACKEND)
        return {one: own if one is Precision.INT8 else calibrated[one] for one in precisions_of(BACKEND)}

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

    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    @pytest.mark.parametrize("ends", ["float32", "uint8", "int8"])
    def test_no_layer_is_left_in_float(
        self, calibrated: dict[Precision, Student], tmp_path: Path, layout: str, ends: str
    ) -> None:
        """As OpenVINO compiles it for this CPU: which layers are integer is the plug-in's choice, not the file's."""
        options = ExportOptions.model_validate({"layout": layout, "input": ends, "output": ends})
        path = tmp_path / "model.xml"
        OpenvinoExporter().export(calibrated[Precision.INT8], options, BACKEND, None, path)
        listed = _layers(path)
        heavy = [precision for kind, precision in listed if kind in ("Convolution", "FullyConnected")]
        assert len(heavy) == 10
        assert set(heavy) <= {"u8", "i8"}

    def test_coloured_images_cost_the_first_layer_nothing(self, coloured: Student, tmp_path: Path) -> None:
        """With a mean and deviation a channel."""
        path = tmp_path / "model.xml"
        OpenvinoExporter().export(coloured, ExportOptions(), BACKEND, None, path)
        assert all(precision in ("u8", "i8") for kind, precision in _layers(path) if kind == "Convolution")

    @pytest.mark.parametrize("precision", [Precision.INT8, Precision.DYNAMIC_INT8])
    def test_what_hangs_on_constants_alone_is_folded_and_answers_stay(
        self, calibrated: dict[Precision, Student], samples: NDArray[Any], tmp_path: Path, precision: Precision
    ) -> None:
        path, read = tmp_path / "model.xml", tmp_path / "read.xml"
        OpenvinoExporter().export(calibrated[precision], ExportOptions(), BACKEND, None, path)
        data = onnx_model(calibrated[precision], ExportOptions(), for_openvino=True).SerializeToString()
        openvino.save_model(openvino.Core().read_model(model=data), read, compress_to_fp16=False)
        kinds = {layer.get("type") for layer in ElementTree.parse(path).iter("layer")}
        assert not kinds & {"ShapeOf", "Broadcast", "VariadicSplit"}
        assert path.with_suffix(".bin").stat().st_size <= read.with_suffix(".bin").stat().st_size  # weights in 8 bits
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        folded, plain = (openvino.Core().compile_model(str(file), "CPU", config) for file in (path, read))
        images = samples[:1].transpose(0, 2, 3, 1)
        assert np.array_equal(folded(images)[0], plain(images)[0])

    @pytest.mark.parametrize("precision", precisions_of(BACKEND))
    def test_the_same_student_gives_the_same_bytes(
        self, calibrated: dict[Precision, Student], tmp_path: Path, precision: Precision
    ) -> None:
        made = [
            OpenvinoExporter().export(
                calibrated[precision], ExportOptions(), BACKEND, None, tmp_path / f"{number}{Format.OPENVINO.suffix}"
            )
            for number in range(2)
        ]
        assert made[0].sha256 == made[1].sha256


def _layers(path: Path) -> list[tuple[str, str]]:
    """Kind and precision of each layer as it runs."""
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ordered_ops()]
    return [(str(info["layerType"].astype(str)), str(info["runtimePrecision"].astype(str))) for info in layers]


@pytest.mark.runtime
def test_a_bf16_file_is_computed_in_bfloat16(
    calibrated: dict[Precision, Student], this_computer: DeviceSession, tmp_path: Path
) -> None:
    """By the convolutions' kernels, on a processor that has it; float32 stays float32 everywhere."""
    kernels = {}
    for precision in (Precision.FLOAT32, Precision.BF16):
        path = tmp_path / f"{precision.value}.xml"
        artefact = OpenvinoExporter().export(calibrated[precision], ExportOptions(), BACKEND, None, path)
        runtime = open_runtime("openvino", "cpu", 1)
        runtime.load(str(artefact.path))
        runtime.prepare([np.zeros((1, 16, 16, 3), np.float32)])
        kernels[precision] = [one.precision for one in runtime.profile(str(path), 1) if "conv" in one.kind]
    has = bool({"avx512_bf16", "amx_bf16"} & set(this_computer.describe().extensions))
    assert not any("bf16" in kind for kind in kernels[Precision.FLOAT32])
    assert any("bf16" in kind for kind in kernels[Precision.BF16]) == has


@pytest.mark.runtime
def test_weights_in_8_bits_alone_switch_quantizing_at_run_time_off(
    calibrated: dict[Precision, Student], tmp_path: Path
) -> None:
    groups = {}
    for precision in (Precision.DYNAMIC_INT8, Precision.INT8_WEIGHTS):
        path = tmp_path / f"{precision.value}.xml"
        OpenvinoExporter().export(calibrated[precision], ExportOptions(), BACKEND, None, path)
        compiled = openvino.Core().compile_model(str(path), "CPU")
        groups[precision] = int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))
    assert groups[Precision.INT8_WEIGHTS] == 0
    assert groups[Precision.DYNAMIC_INT8] > 0
