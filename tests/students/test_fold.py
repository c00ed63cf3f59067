"""Folding changes no answer, and leaves alone what can't be folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgekd.students.fold import fold_module
from edgekd.tasks._protocol import InputSpec


class Sequential(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.BatchNorm2d(8, affine=False),
            nn.Flatten(),
            nn.Linear(8 * 36, 6),
            nn.BatchNorm1d(6),
        )


class Residual(nn.Module):
    """As people write it: one relu module called twice, a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.relu(y), 1), 1))


class BothRead(nn.Module):
    """The convolution's own output is read beside its BatchNorm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class Aliased(nn.Module):
    """Layers under two names, of which the forward pass uses the later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Residual()
        self.features = nn.Sequential(self.backbone.conv1, self.backbone.bn1, self.backbone.relu)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class NormTwice(nn.Module):
    """One BatchNorm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv2(self.bn(self.conv1(x))))


class Tied(nn.Module):
    """Two convolutions with one weight; only one has a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.conv2.weight = self.conv1.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.bn(self.conv1(x)))


class NormFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class Mixer(nn.Module):
    """A linear layer over the last axis, and a BatchNorm over the second, of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.bn, self.fc = nn.Linear(64, 3), nn.BatchNorm1d(3), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.mix(x.flatten(2))).flatten(1))


class SamePadding(nn.Conv2d):
    """As EfficientNets are ported: TensorFlow's padding inside the convolution's own class."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Renamed(nn.Conv2d):
    """A class of its own that computes as its parent does."""


class Standardised(nn.Conv2d):
    """Its weight is computed from its parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Biasless(nn.Conv2d):
    """It has no use for a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


class Before(nn.Module):
    """A BatchNorm and an activation before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.bn(x)))


class NormReLU(nn.BatchNorm2d):
    """A BatchNorm that computes more."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: an activation is its child."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        stats = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return self.act(nn.functional.batch_norm(x, *stats))


class Hooked(nn.Module):
    """Its BatchNorm's answer is changed by a hook, which goes where the BatchNorm goes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.bn.register_forward_hook(lambda *_: torch.relu(_[-1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def behind(kind: type[nn.Conv2d]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(kind(3, 4, 3, bias=False), nn.BatchNorm2d(4))


def awake(module: nn.Module) -> nn.Module:
    """With statistics that do something."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.3, 3)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


def test_layers_under_two_names_are_folded_under_both() -> None:
    module = awake(Aliased())
    folded = fold_module(module, InputSpec(shape=(3, 8, 8)))
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert isinstance(folded.features[1], nn.Identity)
    assert folded.features[0] is folded.backbone.conv1


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)) for part in module.modules())


@pytest.mark.parametrize(
    ("kind", "left"),
    [(Sequential, 0), (Residual, 0), (BothRead, 0), (NormTwice, 0), (Tied, 0), (NormFirst, 0), (Mixer, 1), (Before, 0)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_folded_module_answers_as_before(kind: type[nn.Module], left: int) -> None:
    module = awake(kind())
    shape = (3, 8, 8)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    folded = fold_module(module, InputSpec(shape=shape))
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert norms(folded) == left
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_folding_twice_changes_nothing() -> None:
    once = fold_module(awake(Residual()), InputSpec(shape=(3, 8, 8)))
    twice = fold_module(once, InputSpec(shape=(3, 8, 8)))
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "layers"), [(SamePadding, 1), (Renamed, 1), (Standardised, 2), (Biasless, 2)], ids=lambda v: str(v)
)
def test_a_class_of_its_own_folds_where_it_computes_with_its_own_weight_and_bias(
    kind: type[nn.Conv2d], layers: int
) -> None:
    """Where it does not, the BatchNorm is a depthwise convolution behind it."""
    module = awake(behind(kind)())
    folded = fold_module(module, InputSpec(shape=(3, 8, 8)))
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert sum(isinstance(part, nn.Conv2d) for part in folded.modules()) == layers
    assert norms(folded) == 0


@pytest.mark.parametrize("kind", [NormReLU, NormAct])
@pytest.mark.parametrize("alone", [False, True])
def test_a_batch_norm_that_computes_more_is_left_as_it_is(kind: Callable[[int], nn.Module], alone: bool) -> None:
    first = nn.ReLU() if alone else nn.Conv2d(3, 3, 3)
    module = awake(nn.Sequential(first, kind(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    folded = fold_module(module, InputSpec(shape=(3, 8, 8)))
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert norms(folded) == 1  # the other one is folded all the same


def test_an_unfolded_copy_comes_back_where_folding_would_change_the_answer(monkeypatch) -> None:
    module = awake(Hooked())
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold_module(module, InputSpec(shape=(3, 8, 8)))(x), module(x))
    monkeypatch.setattr("edgekd.students.fold._gain", lambda norm: (norm.weight.double(), norm.bias.double()))
    module = awake(Residual())
    torch.testing.assert_close(fold_module(module, InputSpec(shape=(3, 8, 8)))(x), module(x))


@pytest.mark.parametrize(
    ("pool", "whole"),
    [
        (nn.AvgPool2d(8), True),
        (nn.AvgPool2d((64, 9), ceil_mode=True), True),
        (nn.AvgPool2d(4), False),
        (nn.AvgPool2d(8, padding=1), False),
        (nn.AvgPool2d(8, divisor_override=3), False),
    ],
)
def test_an_average_pool_over_the_whole_image_is_one_to_a_pixel(pool: nn.Module, whole: bool) -> None:
    """TFLite's converter pads an image to a larger window, which `ceil_mode` allows: of 1,280 pixels it is 8 GB."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), pool).eval()
    made = fold_module(module, InputSpec(shape=(3, 8, 8)))
    image = torch.randn(2, 3, 8, 8)
    assert isinstance(made[1], nn.AdaptiveAvgPool2d) is whole
    assert torch.allclose(made(image), module(image), atol=1e-6)
    assert isinstance(module[1], nn.AvgPool2d)
