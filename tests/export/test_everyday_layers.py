"""Layers of people's own models: dropout, ReLU6, depthwise convolutions, views, padding, pools of several shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import check_parity
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

pytestmark = pytest.mark.runtime


class Inverted(nn.Module):
    """Expand, depthwise, project, and a shortcut (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
            nn.Conv2d(32, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PoolsBeforeReLU(nn.Module):
    """As PyTorch's tutorials have it, with ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 10), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.max_pool2d(self.conv(x), 2))
        return self.fc(self.drop(x.view(-1, 8 * 64)))


def mobile() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
    return nn.Sequential(*stem, Inverted(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 10))


def vgg() -> nn.Module:
    """Two adaptive pools: one to the size that is there, one over equal windows."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d((8, 8)),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(16, 10),
    )


def padded() -> nn.Module:
    """Padding by an operator of its own, and a stem with overlapping pools."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(3, 8, 3, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def shrunken() -> nn.Module:
    """The first thing done to an image is an average."""
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1], "resolution": [8]}, "stages": 2})
    spec = TaskSpec(name="squares", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
    return family.build(family.space(spec).at(0), spec)


def inverted() -> nn.Module:
    """The family `mobilenet`, with and without a first convolution in its blocks."""
    family = MobileNet.model_validate(
        {"space": {"widths": [8, 16], "depths": [2, 1], "expansions": [1, 6]}, "stages": 2}
    )
    spec = TaskSpec(name="squares", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
    return family.build(family.space(spec).at(0), spec)


class SamePadding(nn.Conv2d):
    """As EfficientNets are ported: padding inside the convolution's own class."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Unfused(nn.Module):
    """BatchNorms behind a sum and before an activation, and an answer that is a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = SamePadding(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8)
        self.conv, self.same, self.before = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.classes, self.pool = nn.Conv2d(8, 10, 1), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.unused = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x))
        self.unused(x)
        x = torch.relu(self.before(self.conv(x) + self.same(x)))
        return self.pool(self.classes(x))


class Halves(nn.Module):
    """Channels are split, and half of them are computed with (Ma et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 4, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(x).chunk(2, 1)
        return self.fc(torch.cat([left, self.other(right)], 1).mean((2, 3)))


class Rows(nn.Module):
    """Linear layers over patches and over channels, and a reshape of what was transposed, behind a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.relu = nn.Conv2d(3, 8, 4, 4), nn.ReLU(inplace=True)
        self.patches, self.channels, self.classes = nn.Linear(16, 16), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.patch(x))
        x = x.view(-1, 2, 4, 4, 4).transpose(1, 2).reshape(-1, 8, 16)
        x = self.relu(self.patches(x)).transpose(1, 2)
        return self.classes(self.channels(x).mean(1))


def transposed() -> nn.Module:
    """Down and up again, as a segmentation network goes."""
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), up, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )


class Blurred(nn.Module):
    """Fixed filters: a buffer, one that no file of weights has, and a plain tensor (Zhang 2019)."""

    def __init__(self) -> None:
        super().__init__()
        blur = torch.ones(8, 1, 2, 2) / 4
        self.register_buffer("kept", blur)
        self.register_buffer("made", blur.clone(), persistent=False)
        self.plain = blur.clone()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        for weight in (self.kept, self.made, self.plain):
            x = nn.functional.conv2d(x, weight, stride=2, groups=8)
        return self.fc(x.mean((2, 3)))


class Aliased(nn.Module):
    """A part of a backbone under another name, as people cut off its head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.features = nn.Sequential(*list(self.backbone.children())[:-1])
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class InPlace(nn.Module):
    """The input is changed, and a buffer counts; a bias is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10)
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        self.calls += 1
        x = torch.relu(nn.functional.conv2d(x, self.conv.weight, self.conv.bias * self.gain, 2))
        return self.fc(x.mean((2, 3)))


class PaddedPool(nn.Module):
    """A pool with more padding on one side, as other frameworks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.then, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(self.conv(x), (0, 1, 0, 1), value=float("-inf"))
        return self.fc(torch.relu(self.then(torch.max_pool2d(x, 3, 2))).mean((2, 3)))


class Twins(nn.Module):
    """Layers with weights of equal content, as a graph with a shared initializer is read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.two.load_state_dict({"weight": self.one.weight.detach().clone(), "bias": self.one.bias.detach() + 0.1})

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.two(torch.relu(self.one(torch.relu(self.stem(x)))))).mean((2, 3)))


class OnePixel(nn.Module):
    """A network made for larger images: nothing is left to be pooled at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.other = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 4, 1), nn.Conv2d(8, 8, 1, 4)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.fc(self.pool(torch.relu(self.last(x) + self.other(x))).flatten(1))


UNUSUAL = {"twins": Twins, "blurred": Blurred, "aliased": Aliased, "in-place": InPlace, "padded-pool": PaddedPool}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mobile": mobile,
    "vgg": vgg,
    "padded": padded,
    "pools-before-relu": PoolsBeforeReLU,
    "shrunken": shrunken,
    "one-pixel": OnePixel,
    "inverted": inverted,
    "unfused": Unfused,
    "halves": Halves,
}
ROWS: dict[str, Callable[[], nn.Module]] = {**MODELS, "rows": Rows, "transposed": transposed, **UNUSUAL}
EXPORTERS: dict[str, tuple[Exporter, str]] = {
    "litert/xnnpack": (TfliteExporter(), ".tflite"),
    "onnxruntime/cpu": (OnnxExporter(), ".onnx"),
    "openvino/cpu": (OpenvinoExporter(), ".xml"),
}


def student_of(name: str) -> Student:
    torch.manual_seed(0)
    module = ROWS[name]().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    spec = TaskSpec(
        name="squares", input=InputSpec(shape=(3, 16, 16), mean=(128.0,), std=(64.0,)), head=HeadSpec(classes=10),
        data="0" * 64,
    )  # fmt: skip
    return Student(module=module, task=spec, family=name, options={}, arch=Arch.of({}))


@pytest.mark.parametrize("backend", EXPORTERS)
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_students(
    name: str, precision: Precision, backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, here = EXPORTERS[backend], Backend.model_validate(backend), this_computer.describe()
    student = calibrate(student_of(name), samples, precision, "minmax", here, where)
    options, path = ExportOptions(input="uint8"), tmp_path / f"model{suffix}"
    job = Job(artefact=exporter.export(student, options, where, here, path), backend=where)
    assert check_parity(this_computer, job, student, samples, options, tmp_path / "parity").holds
    left = float_operators(path) if precision is Precision.INT8 else None
    assert left is None or len(left) <= 1, left  # the answer's own conversion


@pytest.mark.parametrize("backend", EXPORTERS)
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.DYNAMIC_INT8, Precision.INT8])
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_models_are_the_students(
    name: str, precision: Precision, backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    (exporter, suffix), where, here = EXPORTERS[backend], Backend.model_validate(backend), this_computer.describe()
    student, options = calibrate(student_of(name), samples, precision, "minmax", here, where), ExportOptions()
    job = Job(artefact=exporter.export(student, options, where, here, tmp_path / f"model{suffix}"), backend=where)
    found = check_parity(this_computer, job, student, samples, options, tmp_path / "parity")
    assert found.holds, found
    if name == "aliased" and precision is Precision.INT8:
        assert not student.annotations.float_operators


@pytest.mark.parametrize("backend", EXPORTERS)
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC_INT8])
@pytest.mark.parametrize("name", ["rows", "transposed"])
def test_layers_without_an_integer_form_are_the_students(
    name: str, precision: Precision, backend: str, samples: NDArray[Any], this_computer: DeviceSession, tmp_path: Path
) -> None:
    """Linear layers over rows, and transposed convolutions, whose output channels are their weights' second axis."""
    (exporter, suffix), where = EXPORTERS[backend], Backend.model_validate(backend)
    student, options = calibrate(student_of(name), samples, precision, "minmax"), ExportOptions()
    if name == "transposed" and precision is Precision.DYNAMIC_INT8:
        encoding = student.annotations.weights["1.weight"]
        assert (encoding.axis, len(encoding.scale)) == (1, 6)
    job = Job(artefact=exporter.export(student, options, where, None, tmp_path / f"model{suffix}"), backend=where)
    assert check_parity(this_computer, job, student, samples, options, tmp_path / "parity").holds


def test_an_almost_empty_channel_keeps_a_scale_that_is_a_number(samples: NDArray[np.uint8]) -> None:
    student = student_of("vgg")
    with torch.no_grad():
        student.module[0].weight[3] = 1e-44  # type: ignore[index,union-attr]
    found = calibrate(student, samples, Precision.DYNAMIC_INT8, "minmax")
    (scales,) = [encoding.scale for name, encoding in found.annotations.weights.items() if name == "0.weight"]
    assert min(scales) >= 2.0**-100
