"""Encodings: what a student trained for a few seconds keeps of its accuracy, and how each range comes about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.artefacts import Backend
from edgekd.compress.quantization.calibrate import _range, activation_encoding, calibrate
from edgekd.compress.quantization.observe import BINS, ObservedRange
from edgekd.compress.quantization.reference import reference_module
from edgekd.compress.quantization.weights import weight_encoding
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Diverged
from edgekd.ir.encoding import Encoding
from edgekd.ir.numerics import A8, Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import load_student, new_student, save_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.digits import Digits
from edgekd.teachers.normalise import normalised

ARCH = Arch.of({"width1": 8, "width2": 16, "width3": 16, "depth1": 1, "depth2": 1, "depth3": 1})
FLOATS = TaskSpec(
    name="floats",
    input=InputSpec(shape=(2, 8, 8), raw_dtype="float32", raw_range=(-3.0, 3.0)),
    head=HeadSpec(classes=4),
    data="0" * 64,
)


def seen_by(task: Digits, name: str) -> tuple[Tensor, Tensor]:
    split, spec = task.split(name), task.spec.input  # type: ignore[arg-type]  # only names of splits are given
    return normalised(torch.from_numpy(split.inputs), spec.mean, spec.std), torch.from_numpy(split.labels)


@pytest.fixture(scope="module")
def task() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def trained(task: Digits) -> Student:
    student = new_student(ResNet(), ARCH, task.spec, seed=0)
    images, labels = seen_by(task, "train")
    module = student.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        for batch in torch.randperm(len(images), generator=order).split(64):
            optimizer.zero_grad()
            F.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimizer.step()
    module.eval()
    return student


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_integers_keep_the_accuracy(task: Digits, trained: Student, method: str) -> None:
    images, labels = seen_by(task, "validation")
    annotated = calibrate(trained, task.split("calibration").inputs, Precision.INT8, method)  # type: ignore[arg-type]
    with torch.no_grad():
        exact, integer = trained.module(images).argmax(1), reference_module(annotated)(images).argmax(1)
    assert float((exact == labels).float().mean()) > 0.93
    assert float((exact == integer).float().mean()) > 0.98
    assert method in annotated.annotations.calibration


@pytest.mark.slow
def test_calibration_repeats_itself_and_survives_saving(task: Digits, trained: Student, tmp_path: object) -> None:
    inputs = task.split("calibration").inputs
    first, second = (calibrate(trained, inputs, Precision.INT8, "mse") for _ in range(2))
    assert first.annotations == second.annotations
    save_student(first, tmp_path)  # type: ignore[arg-type]  # pytest gives a Path
    again = load_student(tmp_path)  # type: ignore[arg-type]
    images, _ = seen_by(task, "validation")
    assert torch.equal(reference_module(again)(images[:8]), reference_module(first)(images[:8]))


@pytest.mark.slow
def test_untrained_students_can_be_calibrated(task: Digits) -> None:
    student = new_student(ResNet(), ARCH, task.spec, seed=3)
    annotations = calibrate(student, task.split("calibration").inputs[:16], Precision.INT8).annotations
    assert set(annotations.weights) == {n for n, p in student.module.named_parameters() if p.dim() > 1}
    assert {"input", "stem:relu", "blocks.0:relu.1", ":mean", "head:linear"} <= set(annotations.activations)
    assert "blocks.0:add" not in annotations.activations  # rounded after its ReLU only
    assert annotations.activations["stem:relu"].zero_point == (-128,)


@pytest.mark.slow
def test_raw_bytes_are_the_inputs_integers(task: Digits, trained: Student) -> None:
    """Nothing is lost between a uint8 image and the network, and no operator is needed between them."""
    encoding = calibrate(trained, task.split("calibration").inputs[:8], Precision.INT8).annotations.activations["input"]
    assert encoding.scale[0] == pytest.approx(1 / task.spec.input.std[0], rel=1e-6)
    assert encoding.zero_point == (round(task.spec.input.mean[0]) - 128,)


def fingerprint(*extensions: str) -> Fingerprint:
    return Fingerprint(
        cpu="test",
        architecture="x86_64",
        cores=1,
        extensions=extensions,
        memory_bytes=1,
        governor=None,
        os="test",
        python="3.11",
        runtimes={},
        providers={},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "extensions", "limit"),
    [
        ("openvino/cpu", ("avx2",), 63),
        ("openvino/cpu", ("avx2", "avx512_vnni"), 127),
        ("onnxruntime/cpu", ("avx2",), 127),  # its exporter stores weights as uint8 there
        ("litert/xnnpack", ("avx2",), 127),
    ],
)
def test_weights_stay_small_where_products_would_saturate(
    task: Digits, trained: Student, backend: str, extensions: tuple[str, ...], limit: int
) -> None:
    annotated = calibrate(
        trained,
        task.split("calibration").inputs[:8],
        Precision.INT8,
        "minmax",
        fingerprint(*extensions),
        Backend.model_validate(backend),
    )
    encoding = annotated.annotations.weights["stem.conv.weight"]
    largest = annotated.module.get_parameter("stem.conv.weight").detach().abs().flatten(1).amax(1)
    assert encoding.limit == limit
    assert torch.allclose(largest / torch.tensor(encoding.scale), torch.full_like(largest, limit), rtol=1e-4)


@pytest.mark.slow
def test_other_precisions_look_at_weights_alone(trained: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.zeros((0, 1, 8, 8), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr("edgekd.compress.quantization.calibrate.trace", None)  # seconds of a large model
        plain = calibrate(trained, nothing, Precision.FLOAT32)
    assert plain.annotations.precision is Precision.FLOAT32
    assert not plain.annotations.weights
    dynamic = calibrate(trained, nothing, Precision.DYNAMIC_INT8)
    assert dynamic.annotations.weights
    assert not dynamic.annotations.activations
    half = calibrate(trained, nothing, Precision.FLOAT16)
    for (name, rounded), exact in zip(half.module.named_parameters(), plain.module.parameters(), strict=True):
        assert torch.equal(rounded, exact.half().float()), name
    with pytest.raises(ConfigurationError, match="calibration samples"):
        calibrate(trained, nothing, Precision.INT8)


def mine(module: nn.Module) -> Student:
    return Student(module=module.eval(), task=FLOATS, family="mine", options={}, arch=Arch.of({}))


def samples(count: int = 32) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(count, 2, 8, 8)).astype(np.float32)


class Parts(nn.Module):
    """Concatenation, pooling, padding, a ReLU with a ceiling and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        left = F.max_pool2d(F.relu6(self.left(F.pad(x, (1, 1, 1, 1)))), 2)
        right = F.avg_pool2d(self.right(F.pad(x, (1, 1, 1, 1))), 2)
        both = torch.cat([left, right], 1)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(both * both, 1), 1))


@pytest.mark.slow
def test_tensors_that_must_share_an_encoding_do() -> None:
    torch.manual_seed(0)
    student = mine(Parts())
    annotated = calibrate(student, samples(), Precision.INT8, "minmax")
    found = annotated.annotations.activations
    shared = {found[":relu6"], found[":cat"], found["right:conv"], found[":avg_pool"]}
    assert len(shared) == 1
    assert not {":pad", ":max_pool", ":flatten"} & set(found)  # they pass on what they get
    x = torch.from_numpy(samples())
    answer = student.module(x).detach()
    assert float((reference_module(annotated)(x) - answer).abs().max()) < 0.05 * float(answer.abs().max())


class Skip(nn.Module):
    """Features much larger than the image, concatenated with it: both must share its encoding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(3, 4)
        nn.init.constant_(self.conv.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([x, F.relu(self.conv(x))], 1).mean((2, 3)))


def test_bytes_do_not_clip_what_shares_their_encoding() -> None:
    torch.manual_seed(0)
    spec = FLOATS.but(input=InputSpec(shape=(1, 8, 8), mean=(125.0,), std=(60.0,)))
    student = Student(module=Skip().eval(), task=spec, family="mine", options={}, arch=Arch.of({}))
    raw = np.random.default_rng(0).integers(0, 256, (32, 1, 8, 8)).astype(np.uint8)
    annotated = calibrate(student, raw, Precision.INT8, "minmax")
    x = normalised(torch.from_numpy(raw), spec.input.mean, spec.input.std)
    answer = student.module(x).detach()
    assert float((reference_module(annotated)(x) - answer).abs().max()) < 0.05 * float(answer.abs().max())


@pytest.mark.slow
def test_an_almost_empty_channel_keeps_its_bias() -> None:
    """Its weights alone would ask for a scale at which the bias doesn't fit int32."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    with torch.no_grad():
        module[0].weight[0] = 1e-12
        module[0].weight[1] = 0.0
        module[0].bias[:2] = 2.0
    student = mine(module)
    annotated = calibrate(student, samples(), Precision.INT8, "minmax")
    source, weight = annotated.annotations.activations["input"], annotated.annotations.weights["0.weight"]
    assert all(2.0 / (source.scale[0] * scale) < 2**31 for scale in weight.scale[:1])
    x = torch.from_numpy(samples())
    assert float((reference_module(annotated)(x) - module(x).detach()).abs().max()) < 0.1


def test_a_tensor_that_is_always_zero_has_an_encoding() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.fill_(-1)
    annotated = calibrate(mine(module), samples(), Precision.INT8, "mse")
    x = torch.from_numpy(samples())
    torch.testing.assert_close(reference_module(annotated)(x), module(x), atol=0.02, rtol=0.02)


def test_a_diverged_student_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    with torch.no_grad():
        module[0].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="aren't finite"):
        calibrate(mine(module), samples(), Precision.INT8)


def outlier() -> nn.Module:
    """Passes its input on; one value of the samples lies far outside."""
    module = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Flatten(), nn.Linear(128, 4))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
    return module


@pytest.mark.slow
def test_methods_differ_on_outliers_as_they_say() -> None:
    data = samples(64)
    data[0, 0, 0, 0] = 400.0
    student = mine(outlier())

    def highest(method: str, **more: float) -> float:
        annotated = calibrate(student, data, Precision.INT8, method, **more)  # type: ignore[arg-type]
        encoding = annotated.annotations.activations["0:conv"]
        return (127 - encoding.zero_point[0]) * encoding.scale[0]

    assert highest("minmax") == pytest.approx(400, rel=0.02)
    assert highest("percentile", percentile=99.9) < 10
    assert highest("mse") < 400


@pytest.mark.parametrize(("percentile", "deviations"), [(99.0, 2.326), (99.9, 3.090), (99.99, 3.719)])
def test_a_percentile_leaves_out_as_much_as_it_says_on_each_side(percentile: float, deviations: float) -> None:
    data = np.random.default_rng(0).standard_normal((2000, 2, 8, 8), np.float32)
    annotated = calibrate(mine(outlier()), data, Precision.INT8, "percentile", percentile=percentile)
    encoding = annotated.annotations.activations["0:conv"]
    assert (127 - encoding.zero_point[0]) * encoding.scale[0] == pytest.approx(deviations, rel=0.05)
    assert (-128 - encoding.zero_point[0]) * encoding.scale[0] == pytest.approx(-deviations, rel=0.05)


def test_the_hundredth_percentile_is_everything_seen() -> None:
    student, data = mine(outlier()), samples()
    whole = calibrate(student, data, Precision.INT8, "percentile", percentile=100.0).annotations.activations
    assert whole == calibrate(student, data, Precision.INT8, "minmax").annotations.activations


def test_mse_takes_the_range_with_the_least_error_of_all_it_tries() -> None:
    data = np.random.default_rng(0).standard_normal((200, 2, 8, 8), np.float32)
    data[0, 0, 0, :4] = 12.0
    low, high = float(data.min()), float(data.max())

    def error(encoding: Encoding) -> float:
        scale, zero = encoding.scale[0], encoding.zero_point[0]
        back = (np.clip(np.rint(data / scale) + zero, -128, 127) - zero) * scale
        return float(((data - back) ** 2).sum())

    tried = [error(activation_encoding(low * share, high * share)) for share in np.linspace(1.0, 0.4, 61)]
    chosen = calibrate(mine(outlier()), data, Precision.INT8, "mse").annotations.activations["0:conv"]
    assert error(chosen) <= 1.02 * min(tried) < 0.8 * max(tried)


def test_mse_counts_zeros_as_exact() -> None:
    """Behind a ReLU most values are zeros: they are no reason for a finer scale that clips the others."""
    data = np.random.default_rng(0).standard_normal((200, 2, 8, 8), np.float32)
    data = np.where(np.random.default_rng(1).random(data.shape) < 0.9, 0, np.abs(data) ** 3).astype(np.float32)
    high = float(data.max())

    def error(encoding: Encoding) -> float:
        scale, zero = encoding.scale[0], encoding.zero_point[0]
        back = (np.clip(np.rint(data / scale) + zero, -128, 127) - zero) * scale
        return float(((data - back) ** 2).sum())

    counts, _ = np.histogram(data, BINS, (0.0, high))
    low, chosen = _range(ObservedRange(0.0, high, counts), "mse", 99.99, A8)
    tried = [error(activation_encoding(0.0, high * share)) for share in np.linspace(1.0, 0.4, 61)]
    assert low == 0.0
    assert error(activation_encoding(0.0, chosen)) <= 1.02 * min(tried)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [(0.0, 2.0, -128), (-1.0, 1.0, 0), (0.5, 2.0, -128), (-2.0, -1.0, 127), (0.0, 0.0, -128)],
)
def test_zero_is_exact_in_every_range(low: float, high: float, zero_point: int) -> None:
    encoding: Encoding = activation_encoding(low, high)
    assert abs(encoding.zero_point[0] - zero_point) <= 1
    assert encoding.scale[0] > 0
    assert np.float32(encoding.scale[0]) == encoding.scale[0]  # files hold float32


@pytest.mark.parametrize(("limit", "clips"), [(1, True), (3, True), (7, True), (127, False)])
def test_weights_of_few_integers_are_clipped_where_that_lessens_the_error(limit: int, clips: bool) -> None:
    weight = torch.randn((4, 256), generator=torch.Generator().manual_seed(0))
    widest = weight.abs().amax(1) / limit

    def error(scale: Tensor) -> Tensor:
        along = scale[:, None]
        return ((weight / along).round().clamp(-limit, limit) * along - weight).square().sum(1)

    found = torch.tensor(weight_encoding(weight, limit).scale)
    assert bool((found < 0.95 * widest).all()) == clips
    assert bool((error(found) <= error(widest)).all())
