"""The Tflite exporter: its contract on the real runtime, and what is special to the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx.encode import integers
from edgekd.export.parity import check_parity
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.export.tflite.flatbuffer import constant_of, operator_name, read_model, schema
from edgekd.ir.numerics import Precision
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.testing.contracts.exporter import ExporterContract
from tests.export.conftest import student_of
from tests.export.kernels.test_read import mobile

BACKEND = Backend.model_validate("litert/xnnpack")


@pytest.mark.runtime
class TestTfliteExporter(ExporterContract):
    @pytest.fixture
    def make_exporter(self) -> Callable[[], Exporter]:
        return TfliteExporter

    @pytest.fixture
    def backend(self) -> Backend:
        return BACKEND

    @pytest.fixture
    def suffix(self) -> str:
        return ".tflite"

    @pytest.fixture
    def students(self, calibrated: dict[Precision, Student]) -> dict[Precision, Student]:
        return {precision: calibrated[precision] for precision in precisions_of(BACKEND)}

    @pytest.fixture
    def raw(self, samples: NDArray[Any]) -> NDArray[Any]:
        return samples

    @pytest.fixture
    def session(self, this_computer: DeviceSession) -> DeviceSession:
        return this_computer

    def test_a_student_above_256_kib_gets_its_int8_file(
        self, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
    ) -> None:
        """From that size on ai-edge-quantizer puts constants behind the flatbuffer."""
        family = ResNet.model_validate({"space": {"widths": [32, 64, 128], "depths": [1, 1, 1]}})
        task = student_of().task
        large = new_student(family, family.space(task).at(0), task, seed=0)
        student = calibrate(large, samples, Precision.INT8, "minmax")
        path, options = tmp_path / "model.tflite", ExportOptions(input="uint8")
        artefact = TfliteExporter().export(student, options, BACKEND, None, path)
        assert artefact.size_bytes > 300_000
        job = Job(artefact=artefact, backend=BACKEND)
        assert check_parity(this_computer, job, student, samples, options, tmp_path / "parity").holds

    def test_the_vendors_quantizer_calibrates_and_quantizes_a_float_file(
        self, calibrated: dict[Precision, Student], samples: NDArray[Any], tmp_path: Path
    ) -> None:
        """Its calibration reads every tensor, and fails on one that no operator makes or reads."""
        from ai_edge_quantizer import quantizer, recipe

        path = tmp_path / "model.tflite"
        artefact = TfliteExporter().export(calibrated[Precision.FLOAT32], ExportOptions(), BACKEND, None, path)
        work = quantizer.Quantizer(path.read_bytes())
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        images = samples.transpose(0, 2, 3, 1).astype(np.float32)
        ranges = work.calibrate({"serving_default": [{"image": image[None]} for image in images]})
        assert len(work.quantize(ranges).quantized_model) < artefact.size_bytes

    @pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.DYNAMIC_INT8, Precision.INT8])
    def test_every_tensor_is_made_or_read(
        self, calibrated: dict[Precision, Student], precision: Precision, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.tflite"
        TfliteExporter().export(calibrated[precision], ExportOptions(layout="nchw"), BACKEND, None, path)
        graph = read_model(path.read_bytes()).subgraphs[0]
        used = {int(i) for operator in graph.operators for i in (*operator.inputs, *operator.outputs) if i >= 0}
        assert used == set(range(len(graph.tensors)))

    def test_equal_vectors_are_stored_once(
        self, calibrated: dict[Precision, Student], samples: NDArray[Any], tmp_path: Path
    ) -> None:
        """Zero points of 64 bits, and scales that a weight and its bias both have."""
        path = tmp_path / "model.tflite"
        TfliteExporter().export(calibrated[Precision.INT8], ExportOptions(), BACKEND, None, path)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(read_model(path.read_bytes()).Pack(builder), b"TFL3")
        plain = bytes(builder.Output())
        assert len(path.read_bytes()) < 0.9 * len(plain)
        inputs = samples[:1].transpose(0, 2, 3, 1).astype(np.float32)
        answers = []
        for content in (path.read_bytes(), plain):
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs)
            interpreter.invoke()
            answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        assert np.array_equal(*answers)

    def test_int8_ends_need_no_operator(self, calibrated: dict[Precision, Student], tmp_path: Path) -> None:
        options = ExportOptions(input="int8", output="int8")
        path = tmp_path / "model.tflite"
        TfliteExporter().export(calibrated[Precision.INT8], options, BACKEND, None, path)
        model = read_model(path.read_bytes())
        kinds = [operator_name(model, operator) for operator in model.subgraphs[0].operators]
        assert kinds[0] == "CONV_2D"
        assert kinds[-1] == "FULLY_CONNECTED"
        assert not {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE"} & set(kinds)
        taken = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
        assert (float(taken.quantization.scale[0]), int(taken.quantization.zeroPoint[0])) == (1 / 64, 0)

    def test_tensors_have_the_students_names_and_integers(
        self, calibrated: dict[Precision, Student], tmp_path: Path
    ) -> None:
        student, path = calibrated[Precision.INT8], tmp_path / "model.tflite"
        TfliteExporter().export(student, ExportOptions(), BACKEND, None, path)
        model = read_model(path.read_bytes())
        tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
        for key, encoding in student.annotations.activations.items():
            if key in tensors:
                parameters = tensors[key].quantization
                assert float(parameters.scale[0]) == pytest.approx(encoding.scale[0], rel=1e-6)
                assert int(parameters.zeroPoint[0]) == encoding.zero_point[0]
        assert len(set(student.annotations.activations) & set(tensors)) >= 10
        content = constant_of(model, tensors["stem.conv.weight"])
        assert content is not None
        weight = student.module.get_parameter("stem.conv.weight").detach().numpy()
        expected = integers(weight, student.annotations.weights["stem.conv.weight"]).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(np.frombuffer(content, np.int8).reshape(expected.shape), expected)

    def test_a_missing_encoding_names_its_operator(self, calibrated: dict[Precision, Student], tmp_path: Path) -> None:
        student = calibrated[Precision.INT8]
        fewer = {key: value for key, value in student.annotations.activations.items() if key != ":mean"}
        wrong = student.but(annotations=student.annotations.but(activations=fewer))
        with pytest.raises(ConfigurationError, match=r"no encoding for the output of MEAN"):
            TfliteExporter().export(wrong, ExportOptions(), BACKEND, None, tmp_path / "model.tflite")

    def test_channels_with_their_own_mean(
        self, coloured: Student, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
    ) -> None:
        options = ExportOptions(input="uint8")
        artefact = TfliteExporter().export(coloured, options, BACKEND, None, tmp_path / "model.tflite")
        job = Job(artefact=artefact, backend=BACKEND)
        assert check_parity(this_computer, job, coloured, samples, options, tmp_path).holds
        left = float_operators(artefact.path)
        assert left is not None
        assert any(operator.startswith("MUL") for operator in left)
        graph = read_model(artefact.path.read_bytes()).subgraphs[0]
        taken = graph.tensors[graph.inputs[0]].quantization
        assert (taken.scale.tolist(), taken.zeroPoint.tolist()) == ([1.0], [0])  # as it says: raw values


@pytest.mark.runtime
def test_sixteen_bit_activations_have_the_fast_kernels_where_there_are_some(
    samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    """Convolutions with int32 biases; depthwise ones take none but int64."""
    student = calibrate(mobile(), samples, Precision.INT16X8, "minmax")
    artefact = TfliteExporter().export(student, ExportOptions(), BACKEND, None, tmp_path / "model.tflite")
    job = Job(artefact=artefact, backend=BACKEND)
    report = check_parity(this_computer, job, student, samples, ExportOptions(), tmp_path)
    assert report.holds, report.detail
    model, types = read_model(artefact.path.read_bytes()), schema().TensorType
    tensors, biases = model.subgraphs[0].tensors, dict[str, set[int]]()
    for operator in model.subgraphs[0].operators:
        if len(operator.inputs) == 3 and operator_name(model, operator) in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            biases.setdefault(operator_name(model, operator), set()).add(tensors[int(operator.inputs[2])].type)
    assert biases == {"CONV_2D": {types.INT32}, "DEPTHWISE_CONV_2D": {types.INT64}}
