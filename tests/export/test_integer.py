"""What a file still computes in float is what ONNX Runtime leaves in float, and what TFLite's own types say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.artefacts import Backend
from edgekd.export._protocol import ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.ir.support import ONNXRUNTIME_INTEGER
from edgekd.students._protocol import Student

pytestmark = pytest.mark.runtime

ORT, LITERT = Backend.model_validate("onnxruntime/cpu"), Backend.model_validate("litert/xnnpack")
CHANGING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Add", "Conv", "Gemm", "GlobalAveragePool")
ENDS = ("float32", "uint8", "int8")


def kinds(operators: tuple[str, ...] | None) -> list[str]:
    assert operators is not None
    return [operator.split(" (")[0] for operator in operators]


@pytest.mark.parametrize("given", ENDS)
@pytest.mark.parametrize("given_back", ENDS)
@pytest.mark.parametrize("channels", ["alike", "apart"])
def test_onnx_runtime_leaves_in_float_what_is_said(
    calibrated: dict[Precision, Student],
    coloured: Student,
    tmp_path: Path,
    given: str,
    given_back: str,
    channels: str,
) -> None:
    student = calibrated[Precision.INT8] if channels == "alike" else coloured
    options = ExportOptions.model_validate({"input": given, "output": given_back, "layout": "nchw"})
    path = tmp_path / "model.onnx"
    OnnxExporter().export(student, options, ORT, None, path)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "fused.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    fused = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert Counter(kinds(float_operators(path))) == Counter({kind: fused[kind] for kind in CHANGING if fused[kind]})


ATTRIBUTES: dict[str, dict[str, object]] = {"Concat": {"axis": 1}, "AveragePool": {"kernel_shape": [2, 2]}}
TAKING_TWO = ("Add", "Concat", "Div", "MatMul", "Max", "Mul", "Sub")


def quantized(kind: str, path: Path) -> list[str]:
    """Write one operator between integers. The operators that ONNX Runtime makes of the file."""
    value, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    given = [f"x{number}" for number in range(2 if kind in TAKING_TWO else 1)]
    constants = [onnx.numpy_helper.from_array(np.float32(0.02), "s"), onnx.numpy_helper.from_array(np.uint8(9), "z")]
    nodes, taken = [], []

    def rounded(name: str) -> str:
        nodes.append(onnx.helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}/int"]))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}/int", "s", "z"], [f"{name}/float"]))
        return f"{name}/float"

    taken = [rounded(name) for name in given]
    if kind in ("Conv", "ConvTranspose", "Gemm"):
        shape = (4, 16) if kind == "Gemm" else (4, 4, 2, 2)
        constants += [onnx.numpy_helper.from_array(np.ones(shape, np.int8), "w")]
        constants += [onnx.numpy_helper.from_array(np.int8(0), "wz")]
        nodes.append(onnx.helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["weight"]))
        taken.append("weight")
    if kind == "Pad":
        constants.append(onnx.numpy_helper.from_array(np.array([0, 1, 0, 0, 0, 1, 0, 0]), "pads"))
        taken.append("pads")
    attributes = {"transB": 1} if kind == "Gemm" else ATTRIBUTES.get(kind, {})
    nodes.append(onnx.helper.make_node(kind, taken, ["y"], **attributes))
    answer = rounded("y")
    source = (1, 16) if kind == "Gemm" else (1, 4, 4, 4)
    graph = onnx.helper.make_graph(
        nodes, "g", [value(name, real, source) for name in given], [value(answer, real, None)], constants
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(path.with_name("fused.onnx"))
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path.with_name("fused.onnx")).graph.node]


@pytest.mark.parametrize("kind", sorted(ONNXRUNTIME_INTEGER))
def test_onnx_runtime_has_an_integer_kernel(kind: str, tmp_path: Path) -> None:
    assert kind not in quantized(kind, tmp_path / "model.onnx")
    assert f"{kind} (y)" not in (float_operators(tmp_path / "model.onnx") or ())


@pytest.mark.parametrize("kind", ["Sub", "Div", "Max", "ReduceMean", "ConvTranspose", "Pad"])
def test_onnx_runtime_has_no_integer_kernel(kind: str, tmp_path: Path) -> None:
    assert kind in quantized(kind, tmp_path / "model.onnx")
    assert f"{kind} (y)" in (float_operators(tmp_path / "model.onnx") or ())


def test_a_float_file_is_float_throughout(calibrated: dict[Precision, Student], tmp_path: Path) -> None:
    student = calibrated[Precision.FLOAT32]
    OnnxExporter().export(student, ExportOptions(), ORT, None, tmp_path / "model.onnx")
    TfliteExporter().export(student, ExportOptions(), LITERT, None, tmp_path / "model.tflite")
    assert kinds(float_operators(tmp_path / "model.onnx")).count("Conv") == 9
    assert kinds(float_operators(tmp_path / "model.tflite")).count("CONV_2D") == 9


def test_a_layer_whose_weights_stayed_float_is_float(calibrated: dict[Precision, Student], tmp_path: Path) -> None:
    """Between integer tensors, too: the pair around it is then at work."""
    student = calibrated[Precision.INT8]
    fewer = {name: found for name, found in student.annotations.weights.items() if name != "blocks.1.conv2.weight"}
    OnnxExporter().export(
        student.but(annotations=student.annotations.but(weights=fewer)),
        ExportOptions(input="uint8", output="uint8"),
        ORT,
        None,
        tmp_path / "model.onnx",
    )
    assert kinds(float_operators(tmp_path / "model.onnx")) == ["DequantizeLinear", "Conv", "PRelu", "QuantizeLinear"]


@pytest.mark.parametrize(
    ("given", "given_back", "left"),
    [
        ("int8", "int8", []),
        ("uint8", "uint8", []),
        ("float32", "uint8", ["MUL", "ADD", "QUANTIZE"]),
        ("uint8", "float32", ["DEQUANTIZE"]),
    ],
)
def test_tflite_counts_what_a_float_end_takes(
    calibrated: dict[Precision, Student], tmp_path: Path, given: str, given_back: str, left: list[str]
) -> None:
    options = ExportOptions.model_validate({"input": given, "output": given_back})
    TfliteExporter().export(calibrated[Precision.INT8], options, LITERT, None, tmp_path / "model.tflite")
    assert kinds(float_operators(tmp_path / "model.tflite")) == left
