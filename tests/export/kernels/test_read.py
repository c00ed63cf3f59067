"""A student and its files come to the same kernels, in every format and precision; a stranger's file is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgekd import plugins
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.kernels.read import kernels_of_file
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.analysis import analyse, kernels_of
from edgekd.students.mobilenet import MobileNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

BACKENDS = {
    Format.TFLITE: Backend.model_validate("litert/xnnpack"),
    Format.ONNX: Backend.model_validate("onnxruntime/cpu"),
    Format.OPENVINO: Backend.model_validate("openvino/cpu"),
}


def mobile():
    """Untrained, 3x16x16 bytes to 10 classes, with blocks of every sort."""
    image = InputSpec(shape=(3, 16, 16), mean=(128.0,), std=(64.0,))
    spec = TaskSpec(name="squares", input=image, head=HeadSpec(classes=10), data="0" * 64)
    space = {"widths": [8, 16], "depths": [2, 1], "expansions": [1, 4], "stem_stride": [2]}
    family = MobileNet.model_validate({"space": space, "stages": 2})
    return new_student(family, family.space(spec).at(0), spec, seed=0)


def exported(student, format_, folder):
    """Its file, with nothing asked of the input but float32."""
    exporter = plugins.load("edgekd.exporters", format_.value)()
    backend = BACKENDS[format_]
    path = folder / f"model{format_.suffix}"
    return exporter.export(student, ExportOptions(), backend, None, path)


@pytest.mark.runtime
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8, Precision.INT8])
@pytest.mark.parametrize("format_", list(Format))
@pytest.mark.parametrize("family", ["resnet", "mobilenet"])
def test_a_file_has_its_students_kernels(calibrated, samples, family, precision, format_, tmp_path):
    if format_ not in BACKENDS:
        pytest.skip("no runtime here reads it")
    student = calibrated[precision] if family == "resnet" else calibrate(mobile(), samples, precision, "minmax")
    mine, found = kernels_of(student), kernels_of_file(exported(student, format_, tmp_path))
    assert not Counter(mine) - Counter(found), "a kernel of the student is missing in the file"
    beside = list((Counter(found) - Counter(mine)).elements())
    assert all(kernel.macs == 0 and kernel.inputs in (3, 16) for kernel in beside), beside  # scaling of the input
    assert sum(kernel.macs for kernel in found) == analyse(student, precision).macs


class Attending(nn.Module):
    """A transposed convolution, then attention of each pixel to all others."""

    def __init__(self):
        super().__init__()
        self.up, self.row, self.fc = nn.ConvTranspose2d(3, 6, 2, stride=2), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        rows = self.row(self.up(x).flatten(2).transpose(1, 2))
        return self.fc((torch.matmul(rows, rows.transpose(1, 2)).softmax(-1) @ rows).mean(1))


@pytest.mark.runtime
@pytest.mark.parametrize("format_", list(Format))
def test_matrix_products_and_transposed_convolutions_cost_in_a_file_what_they_cost_in_its_student(format_, tmp_path):
    spec = TaskSpec(name="t", input=InputSpec(shape=(3, 4, 4)), head=HeadSpec(classes=4), data="0" * 64)
    torch.manual_seed(0)
    student = Student(module=Attending().eval(), task=spec, family="mine", options={}, arch=Arch.of({}))
    mine, found = kernels_of(student), kernels_of_file(exported(student, format_, tmp_path))
    for kinds in (("conv",), ("dense",)):
        costs = [[(k.macs, k.weights) for k in kernels if k.kind in kinds] for kernels in (mine, found)]
        assert costs[0] == costs[1]
    sizes = [[(k.inputs, k.outputs, k.height) for k in its if k.kind == "dense"] for its in (mine, found)]
    assert sizes[0] == sizes[1] == [(6, 5, 64), (5, 64, 64), (64, 5, 64), (5, 4, 1)]
    assert [kernel.macs for kernel in mine if kernel.kind == "dense"] == [64 * 30, 64 * 64 * 5, 64 * 64 * 5, 20]
    assert [kernel.macs for kernel in mine if kernel.kind == "conv"] == [16 * 3 * 6 * 4]
    assert sum(kernel.kind == "pool" for kernel in found) == 1


def test_the_larger_of_two_tensors_is_a_kernel_and_a_bound_is_none(tmp_path):
    make = onnx.helper.make_node
    bound = onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, (), [0.1])
    nodes = [make("Sigmoid", ["x"], ["s"]), make("Tanh", ["x"], ["t"])]
    nodes += [make("Max", ["s", "t"], ["m"]), make("Min", ["m", "b"], ["y"])]
    found = kernels_of_file(written(tmp_path, nodes, [bound], (1, 3, 16, 16)))
    assert [kernel.kind for kernel in found] == ["other", "other", "other"]
    assert found[-1].reads == 2 * 3 * 256


def test_bias_clipping_and_padding_are_part_of_the_convolution(tmp_path):
    make = onnx.helper.make_node
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (8, 3, 3, 3), [0.1] * 216)
    bias = onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, (1, 8, 1, 1), [0.1] * 8)
    pads = onnx.helper.make_tensor("p", onnx.TensorProto.INT64, (8,), [0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [
        make("Pad", ["x", "p"], ["padded"]),
        make("Conv", ["padded", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2]),
        make("Add", ["c", "b"], ["biased"]),
        make("Relu", ["biased"], ["r"]),
        make("Sigmoid", ["r"], ["s"]),
        make("Add", ["r", "s"], ["y"]),
    ]
    found = kernels_of_file(written(tmp_path, nodes, [weights, bias, pads], (1, 8, 8, 8)))
    assert [kernel.kind for kernel in found] == ["conv", "other", "add"]
    assert (found[0].reads, found[0].writes, found[0].stride) == (3 * 16 * 16, 8 * 8 * 8, 2)
    assert found[0].macs == 8 * 8 * 216


def test_a_padding_that_others_read_is_a_kernel(tmp_path):
    make = onnx.helper.make_node
    pads = onnx.helper.make_tensor("p", onnx.TensorProto.INT64, (8,), [0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [make("Pad", ["x", "p"], ["padded"]), make("Sigmoid", ["padded"], ["y"])]
    found = kernels_of_file(written(tmp_path, nodes, [pads], (1, 3, 18, 18)))
    assert [kernel.kind for kernel in found] == ["move", "other"]


def written(folder: Path, nodes, constants, shape) -> Artefact:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, (1, 3, 16, 16))],
        [value("y", onnx.TensorProto.FLOAT, shape)],
        constants,
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), folder / "m.onnx")
    return Artefact.of(folder / "m.onnx")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x00\x00TFL3" + b"\xff" * 40, b"<net><layers><layer/></layers></net>"]
)
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError) as raised:
        kernels_of_file(Artefact(path=path, format=Artefact.of(path).format, sha256="0" * 64, size_bytes=1))
    assert str(path) in str(raised.value)


def test_a_shape_that_is_not_fixed_is_named(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sigmoid", ["x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, (1, 3, "height", 16))],
        [value("y", onnx.TensorProto.FLOAT, (1, 3, "height", 16))],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match="the shape of `x` is not fixed"):
        kernels_of_file(Artefact.of(tmp_path / "m.onnx"))
