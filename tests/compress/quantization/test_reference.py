"""The integer reference against arithmetic done another way: numpy, int64, one operator at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.reference import reference_module
from edgekd.errors import ConfigurationError
from edgekd.ir.encoding import Annotations, Encoding
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(
    name="floats",
    input=InputSpec(shape=(2, 4, 4), raw_dtype="float32", raw_range=(-3.0, 3.0)),
    head=HeadSpec(classes=3),
    data="0" * 64,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.fc = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x) + x).mean((2, 3)))


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return Student(module=Net().eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))


def integers(values: np.ndarray, encoding: Encoding) -> np.ndarray:  # type: ignore[type-arg]
    quantized = np.rint(values / np.float64(encoding.scale[0])) + encoding.zero_point[0]
    return np.clip(quantized, -128, 127).astype(np.int64)


def weight(values: torch.Tensor, encoding: Encoding) -> np.ndarray:  # type: ignore[type-arg]
    rows = values.detach().double().flatten(1).numpy()
    return np.rint(rows / np.array(encoding.scale)[:, None]).astype(np.int64)


def test_every_step_is_an_integers(student: Student) -> None:
    raw = np.random.default_rng(0).normal(size=(40, 2, 4, 4)).astype(np.float32)
    annotated = calibrate(student, raw, Precision.INT8, "minmax")
    net, notes = annotated.module, annotated.annotations
    acts = notes.activations

    def real(q: np.ndarray, key: str) -> np.ndarray:  # type: ignore[type-arg]
        return (q - acts[key].zero_point[0]) * np.float64(acts[key].scale[0])

    def layer(q: np.ndarray, source: str, part: nn.Module, name: str) -> np.ndarray:  # type: ignore[type-arg]
        """Products along the last axis, in real units."""
        scale = np.array(notes.weights[name].scale) * acts[source].scale[0]
        bias = np.rint(part.bias.detach().double().numpy() / scale).astype(np.int64)  # type: ignore[union-attr, operator]
        centred = q - acts[source].zero_point[0]
        return (centred @ weight(part.weight, notes.weights[name]).T + bias) * scale  # type: ignore[arg-type]

    q = integers(np.moveaxis(raw, 1, -1).astype(np.float64), acts["input"])
    conv = integers(layer(q, "input", net.get_submodule("conv"), "conv.weight"), acts["conv:conv"])
    summed = integers(np.maximum(real(conv, "conv:conv") + real(q, "input"), 0), acts[":relu"])
    mean = integers(real(summed, ":relu").mean((1, 2)), acts[":mean"])
    expected = real(
        integers(layer(mean, ":mean", net.get_submodule("fc"), "fc.weight"), acts["fc:linear"]), "fc:linear"
    )

    answer = reference_module(annotated)(torch.from_numpy(raw)).numpy()
    step = acts["fc:linear"].scale[0]
    steps = np.rint(np.abs(answer - expected) / step)
    assert steps.max() <= 1  # float32 may round a tie the other way
    assert (steps == 0).mean() > 0.97
    assert not np.allclose(answer, student.module(torch.from_numpy(raw)).detach().numpy(), atol=step / 50)


def test_answers_dont_depend_on_the_batch(student: Student) -> None:
    raw = np.random.default_rng(0).normal(size=(9, 2, 4, 4)).astype(np.float32)
    reference = reference_module(calibrate(student, raw, Precision.INT8))
    x = torch.from_numpy(raw)
    assert torch.equal(reference(x), torch.cat([reference(part) for part in x.split(1)]))


def test_weights_only_precisions_compute_in_float_on_rounded_weights(student: Student) -> None:
    raw = np.zeros((0, 2, 4, 4), np.float32)
    annotated = calibrate(student, raw, Precision.DYNAMIC_INT8)
    x = torch.randn(5, 2, 4, 4)
    with torch.no_grad():
        plain, rounded = student.module(x), reference_module(annotated)(x)
    assert not torch.equal(plain, rounded)
    torch.testing.assert_close(plain, rounded, atol=0.05, rtol=0.05)
    assert torch.equal(reference_module(student)(x), plain)


class Computing(nn.Module):
    """One weight is computed from another one; a transposed convolution has the weight of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up, self.tied = nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 5, 2), nn.Conv2d(5, 4, 2, bias=False)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.conv_transpose2d(self.tied(self.up(self.conv(x))), self.tied.weight)
        return nn.functional.linear(y.mean((2, 3))[:, :3], self.fc.weight * 2.0, self.fc.bias)


def test_weights_are_encoded_along_their_output_channels_and_left_float_where_that_is_no_one_axis() -> None:
    torch.manual_seed(0)
    student = Student(module=Computing().eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))
    annotated = calibrate(student, np.zeros((0, *SPEC.input.shape), np.float32), Precision.DYNAMIC_INT8)
    assert {name: found.axis for name, found in annotated.annotations.weights.items()} == {
        "conv.weight": 0,
        "up.weight": 1,
    }
    rounded = dict(reference_module(annotated).named_parameters())["up.weight"]
    scales = torch.tensor(annotated.annotations.weights["up.weight"].scale)
    error = (rounded - student.module.get_parameter("up.weight")).abs().amax((0, 2, 3))
    assert bool((error <= scales / 2 * 1.001).all())


def test_annotations_of_another_graph_are_refused(student: Student) -> None:
    with pytest.raises(ConfigurationError, match="no encoding for"):
        reference_module(student.but(annotations=Annotations(precision=Precision.INT8)))
