"""The Onnx exporter: its contract on the real runtime, and what is special to the format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.devices._protocol import DeviceSession, Fingerprint
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.onnx.exporter import OnnxExporter, onnx_model
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.testing.contracts.exporter import ExporterContract
from tests.export.conftest import student_of

BACKEND = Backend.model_validate("onnxruntime/cpu")


@pytest.mark.runtime
class TestOnnxExporter(ExporterContract):
    @pytest.fixture
    def make_exporter(self) -> Callable[[], Exporter]:
        return OnnxExporter

    @pytest.fixture
    def backend(self) -> Backend:
        return BACKEND

    @pytest.fixture
    def suffix(self) -> str:
        return ".onnx"

    @pytest.fixture
    def students(self, calibrated: dict[Precision, Student]) -> dict[Precision, Student]:
        return {precision: calibrated[precision] for precision in precisions_of(BACKEND)}

    @pytest.fixture
    def raw(self, samples: NDArray[Any]) -> NDArray[Any]:
        return samples

    @pytest.fixture
    def session(self, this_computer: DeviceSession) -> DeviceSession:
        return this_computer

    def test_static_int8_runs_in_integers(self, calibrated: dict[Precision, Student], tmp_path: Path) -> None:
        """Fused by ONNX Runtime: every convolution, sum and linear layer has its integer kernel."""
        model = onnx_model(calibrated[Precision.INT8], ExportOptions(input="uint8", output="uint8", layout="nchw"))
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / "fused.onnx")
        settings.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
        assert kinds["QLinearConv"] == 9
        assert kinds["QLinearAdd"] == 3
        assert kinds["QGemm"] == 1
        assert kinds["QLinearGlobalAveragePool"] == 1
        assert sum(kinds[kind] for kind in ("Conv", "Add", "Gemm", "QuantizeLinear", "DequantizeLinear")) == 0

    def test_weights_are_unsigned_where_products_saturate(
        self, calibrated: dict[Precision, Student], saturating: Fingerprint, tmp_path: Path
    ) -> None:
        student = calibrated[Precision.INT8]
        fast = saturating.but(extensions=("avx2", "avx512_vnni"))
        stored = {}
        for name, device in (("old", saturating), ("new", fast)):
            OnnxExporter().export(student, ExportOptions(), BACKEND, device, tmp_path / f"{name}.onnx")
            tensors = {t.name: t for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer}
            stored[name] = numpy_helper.to_array(tensors["stem.conv.weight/int"])
        assert stored["old"].dtype == np.uint8
        assert stored["new"].dtype == np.int8
        np.testing.assert_array_equal(stored["old"].astype(np.int16) - 128, stored["new"])

    def test_an_encoding_without_its_tensor_is_refused(self, calibrated: dict[Precision, Student]) -> None:
        student = calibrated[Precision.INT8]
        extra = {**student.annotations.activations, "blocks.9:add": student.annotations.activations["input"]}
        wrong = student.but(annotations=student.annotations.but(activations=extra))
        with pytest.raises(ConfigurationError, match=r"tensors the student doesn't have: blocks\.9:add"):
            onnx_model(wrong, ExportOptions())

    def test_every_step_is_smaller(self, calibrated: dict[Precision, Student]) -> None:
        sizes = [
            len(onnx_model(calibrated[precision], ExportOptions()).SerializeToString())
            for precision in (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8)
        ]
        assert sizes[0] > 1.5 * sizes[1] > 1.2 * 1.5 * sizes[2]


@pytest.mark.runtime
def test_dynamic_int8_multiplies_integers_in_linear_layers(
    calibrated: dict[Precision, Student], tmp_path: Path
) -> None:
    """As ONNX Runtime runs it: convolutions in float, the linear layer in integers; unsigned where these saturate."""
    kinds, stored = {}, {}
    for precision in (Precision.DYNAMIC_INT8, Precision.INT8_WEIGHTS):
        model = onnx_model(calibrated[precision], ExportOptions(), unsigned_weights=True)
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / f"{precision.value}.onnx")
        settings.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        run = onnx.load(tmp_path / f"{precision.value}.onnx")
        kinds[precision] = Counter(node.op_type for node in run.graph.node)
        stored[precision] = {t.name: numpy_helper.to_array(t).dtype for t in model.graph.initializer}
    dynamic, plain = kinds[Precision.DYNAMIC_INT8], kinds[Precision.INT8_WEIGHTS]
    assert dynamic["DynamicQuantizeMatMul"] + dynamic["MatMulIntegerToFloat"] == 1
    assert dynamic["Gemm"] + dynamic["MatMul"] == 0
    assert plain["Gemm"] + plain["FusedGemm"] == 1
    assert stored[Precision.DYNAMIC_INT8]["head.weight/int"] == np.uint8
    assert stored[Precision.INT8_WEIGHTS]["head.weight/int"] == np.int8


class Bessel(nn.Module):
    """An operator that ONNX doesn't have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x).mean((2, 3))


@pytest.mark.runtime
def test_an_operator_without_onnx_is_named() -> None:
    task = student_of().task
    student = Student(module=Bessel().eval(), task=task, family="mine", options={}, arch=Arch.of({}))
    with pytest.raises(ConfigurationError, match=r"the mine student can't be written as ONNX: .*bessel_j0"):
        onnx_model(student, ExportOptions())
