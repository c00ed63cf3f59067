"""Float islands in static int8 files: the answers are the student's, and the file computes in float what it must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.fake import FakeQuantized
from edgekd.compress.quantization.reference import IntegerReference, reference_module
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx.exporter import OnnxExporter, onnx_model
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import check_parity
from edgekd.export.tensors import normalised
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

pytestmark = pytest.mark.runtime

EXPORTERS: dict[str, tuple[Exporter, str]] = {
    "litert/xnnpack": (TfliteExporter(), ".tflite"),
    "onnxruntime/cpu": (OnnxExporter(), ".onnx"),
    "openvino/cpu": (OpenvinoExporter(), ".xml"),
}
ORT = Backend.model_validate("onnxruntime/cpu")


def swish() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


def tanh_first() -> nn.Module:
    """The input is read in float."""
    return nn.Sequential(
        nn.Tanh(), nn.ReLU(), nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


def sigmoid_last() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10), nn.Sigmoid())


def upwards() -> nn.Module:
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), up, nn.ReLU(), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 10),
    )  # fmt: skip


def clamped() -> nn.Module:
    """A clamp without an integer form behind a convolution, and a padding that isn't zero."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Hardtanh(), nn.Conv2d(8, 8, 3), nn.ConstantPad2d(1, 0.5), nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


class Turned(nn.Module):
    """A float operator that only moves values, as shifted windows do (Liu et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(torch.roll(nn.functional.silu(self.one(x)), (1, 1), (2, 3))).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last, self.fc = nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        x = x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.fc(self.last(x).mean((2, 3)))


class Transformer(nn.Module):
    """A convolutional stem, one pre-norm block, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.up, self.down, self.act = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16), nn.GELU()
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2) * 0.25).softmax(-1) @ v)
        x = x + self.down(self.act(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class PostNorm(nn.Module):
    """A block that normalises its sum (Vaswani et al. 2017): a linear layer reads what a sum in float reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 10)
        self.first, self.norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).flatten(2).transpose(1, 2))
        x = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return self.head(x.mean(1))


class PostNormMoved(PostNorm):
    """Between two operators in float the values are moved, which integers do."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).flatten(2).transpose(1, 2))
        moved = x.reshape(-1, 4, 4, 16).transpose(1, 2).reshape(-1, 16, 16)
        x = self.norm(moved + self.down(torch.nn.functional.gelu(self.up(moved))))
        return self.head(x.mean(1))


class PostNormMaximum(PostNorm):
    """An operator in float with two results."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).flatten(2).transpose(1, 2))
        largest, _ = x.max(1, keepdim=True)
        x = self.norm(largest + self.down(torch.nn.functional.gelu(self.up(x))))
        return self.head(x.mean(1))


class Windows(nn.Module):
    """Attention with biases of positions as its mask, and a pool over tokens (Liu et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.out = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16)
        self.parts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.bias = nn.Parameter(torch.randn(1, 2, 4, 4), requires_grad=False)  # so that torch takes its fused kernel
        self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2).reshape(-1, 4, 16)
        q, k, v = (part(x).view(-1, 4, 2, 8).transpose(1, 2) for part in self.parts)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, self.bias)
        x = (x + self.out(attended.transpose(1, 2).contiguous().reshape(-1, 4, 16))).reshape(-1, 16, 16)
        return self.head(self.pool(x.transpose(1, 2)).flatten(1))


class SinglePatch(nn.Module):
    """Attention over one token, whose result has the values of its third input."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.out = nn.Conv2d(3, 16, 16), nn.Linear(16, 16)
        self.parts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = (part(x).view(-1, 1, 2, 8).transpose(1, 2) for part in self.parts)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head((x + self.out(attended.transpose(1, 2).reshape(-1, 1, 16)))[:, 0])


class Pyramid(nn.Module):
    """Float maps are joined, and a convolution reads the result."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.last, self.fc = nn.Conv2d(16, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        parts = [nn.functional.interpolate(p, (16, 16), mode="bilinear") for p in (x, self.two(x))]
        return self.fc(self.last(torch.cat(parts, 1)).mean((2, 3)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "swish": swish,
    "tanh-first": tanh_first,
    "sigmoid-last": sigmoid_last,
    "upwards": upwards,
    "gated": Gated,
    "transformer": Transformer,
    "post-norm": PostNorm,
    "post-norm-moved": PostNormMoved,
    "post-norm-maximum": PostNormMaximum,
    "windows": Windows,
    "single-patch": SinglePatch,
    "pyramid": Pyramid,
    "clamped": clamped,
}


def student_of(name: str) -> Student:
    torch.manual_seed(0)
    spec = TaskSpec(
        name="squares", input=InputSpec(shape=(3, 16, 16), mean=(128.0,), std=(64.0,)), head=HeadSpec(classes=10),
        data="0" * 64,
    )  # fmt: skip
    return Student(module=MODELS[name]().eval(), task=spec, family=name, options={}, arch=Arch.of({}))


@pytest.mark.parametrize("backend", EXPORTERS)
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_references(
    name: str, backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, here = EXPORTERS[backend], Backend.model_validate(backend), this_computer.describe()
    student = calibrate(student_of(name), samples, Precision.INT8, "minmax", here, where)
    assert student.annotations.float_operators
    options = ExportOptions(input="uint8")
    job = Job(artefact=exporter.export(student, options, where, here, tmp_path / f"model{suffix}"), backend=where)
    report = check_parity(this_computer, job, student, samples, options, tmp_path / "parity")
    assert report.holds, report.detail
    assert report.agree >= len(samples) - 1


@pytest.mark.parametrize("backend", EXPORTERS)
def test_an_island_that_reorders_values(
    backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, here = EXPORTERS[backend], Backend.model_validate(backend), this_computer.describe()
    student = student_of("swish").but(module=Turned().eval())
    student = calibrate(student, samples, Precision.INT8, "minmax", here, where)
    options = ExportOptions(input="uint8")
    job = Job(artefact=exporter.export(student, options, where, here, tmp_path / f"model{suffix}"), backend=where)
    report = check_parity(this_computer, job, student, samples, options, tmp_path / "parity")
    assert report.holds, report.detail


def test_operators_in_float_read_each_other_unrounded(samples: NDArray[Any]) -> None:
    """The sum's parts: a LayerNorm's result in float, which is rounded for a linear layer, and a linear layer's."""
    student = calibrate(student_of("post-norm"), samples, Precision.INT8, "minmax")
    assert "first:layer_norm" in student.annotations.activations
    inputs = torch.from_numpy(normalised(samples, student.task))
    reference = reference_module(student)
    assert isinstance(reference, IntegerReference)
    values = reference.values(inputs)
    assert torch.equal(values[":add"], values["first:layer_norm"] + values["down:linear"])
    differs = (FakeQuantized(student)(inputs) - reference(inputs)).abs() > 1e-4
    assert float(differs.float().mean()) < 0.1, "other than ties; 28 % if the sum reads rounded values"


@pytest.mark.parametrize(("name", "kind"), [("post-norm", "Add"), ("post-norm-maximum", "ReduceMax")])
def test_an_onnx_file_reads_them_unrounded_too(name: str, kind: str, samples: NDArray[Any]) -> None:
    student = calibrate(student_of(name), samples, Precision.INT8, "minmax")
    graph = onnx_model(student, ExportOptions()).graph
    made = {result: node.op_type for node in graph.node for result in node.output}
    read = {
        kind: {made[given] for node in graph.node if node.op_type == kind for given in node.input if given in made}
        for kind in (kind, "QuantizeLinear", "MatMul")
    }
    assert "LayerNormalization" in read[kind]
    assert "LayerNormalization" in read["QuantizeLinear"], "for the linear layer"
    assert "LayerNormalization" not in read["MatMul"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["onnxruntime/cpu", "openvino/cpu"])
def test_every_result_in_a_file_is_read(backend: str, name: str, samples: NDArray[Any]) -> None:
    student = calibrate(student_of(name), samples, Precision.INT8, "minmax")
    graph = onnx_model(student, ExportOptions(), for_openvino=backend.startswith("openvino")).graph
    read = {given for node in graph.node for given in node.input} | {output.name for output in graph.output}
    assert [node.output[0] for node in graph.node if read.isdisjoint(node.output)] == []


@pytest.mark.parametrize("name", MODELS)
def test_the_reference_is_near_the_float_student(name: str, samples: NDArray[Any]) -> None:
    student = student_of(name)
    inputs = torch.from_numpy(normalised(samples, student.task))
    quantized = calibrate(student, samples, Precision.INT8, "minmax")
    with torch.no_grad():
        exact, found = student.module(inputs), reference_module(quantized)(inputs)
    assert float((exact - found).abs().max()) < 0.1 * float(exact.abs().max())
    assert float((exact - found).abs().max()) > 0


@pytest.mark.parametrize("backend", ["litert/xnnpack", "onnxruntime/cpu"])
def test_a_layer_kept_in_float_keeps_its_weights(
    backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, options = EXPORTERS[backend], Backend.model_validate(backend), ExportOptions()
    student = student_of("gated")
    whole = calibrate(student, samples, Precision.INT8, "minmax")
    island = calibrate(student, samples, Precision.INT8, "minmax", keep_float=["last"])
    assert set(island.annotations.float_operators) - set(whole.annotations.float_operators) == {
        ":mul",
        "last:conv",
        ":mean.1",
    }
    assert "last.weight" not in island.annotations.weights
    left = []
    for number, each in enumerate((whole, island)):
        path = tmp_path / f"{number}{suffix}"
        job = Job(artefact=exporter.export(each, options, where, None, path), backend=where)
        report = check_parity(this_computer, job, each, samples, options, tmp_path / "parity")
        assert report.holds, report.detail
        left.append(float_operators(path) or ())
    kind = "CONV_2D" if suffix == ".tflite" else "Conv"
    assert not [operator for operator in left[0] if operator.startswith(f"{kind} ")]
    assert [operator for operator in left[1] if operator.startswith(f"{kind} ")]


def test_onnxruntime_computes_an_island_in_float(samples: NDArray[Any], tmp_path: Path) -> None:
    """It would quantize the weights of a convolution between a dequantized and a quantized value by itself."""
    import onnx
    import onnxruntime

    student = calibrate(student_of("upwards"), samples, Precision.INT8, "minmax", keep_float=["3"])
    OnnxExporter().export(student, ExportOptions(), ORT, None, tmp_path / "model.onnx")
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert sum(kind in ("Conv", "FusedConv") for kind in kinds) == 1, kinds
    assert kinds.count("ConvTranspose") == 1, kinds
    loaded = {t.name: t.data_type for t in onnx.load(tmp_path / "loaded.onnx").graph.initializer}
    weights = [node.input[1] for node in onnx.load(tmp_path / "loaded.onnx").graph.node if "Conv" in node.op_type]
    assert onnx.TensorProto.FLOAT in {loaded.get(name) for name in weights}


def test_integer_ends_need_integer_operators(samples: NDArray[Any], tmp_path: Path) -> None:
    first = calibrate(student_of("tanh-first"), samples, Precision.INT8, "minmax")
    last = calibrate(student_of("sigmoid-last"), samples, Precision.INT8, "minmax")
    with pytest.raises(ConfigurationError, match="input int8 with preprocess: stated needs a first operator"):
        OnnxExporter().export(
            first, ExportOptions(input="int8", preprocess="stated"), ORT, None, tmp_path / "model.onnx"
        )
    with pytest.raises(
        ConfigurationError, match=r"output uint8 needs a last operator .* `4:sigmoid` computes in float"
    ):
        OnnxExporter().export(last, ExportOptions(output="uint8"), ORT, None, tmp_path / "model.onnx")
