"""Three plain models: zero-padded shortcuts, inverted residuals with depthwise convolutions, and a chain."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

EXAMPLES = Path(__file__).parents[3] / "examples"
SHAPE = (3, 32, 32)


class Inverted(nn.Module):
    """Expand, depthwise, project; a shortcut where the shape allows one."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * 4
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6()),
        nn.Sequential(
            Inverted(16, 24, 2), Inverted(24, 24, 1), Inverted(24, 24, 1), Inverted(24, 32, 2), Inverted(32, 32, 1)
        ),
        nn.Conv2d(32, 64, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()),
        nn.MaxPool2d(4),
        nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def resnet20() -> nn.Module:
    spec = importlib.util.spec_from_file_location("cifar_resnet_of_tests", EXAMPLES / "cifar_resnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.resnet20()


class StemLast(nn.Module):
    """A residual stream whose first layer is defined after its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Inverted(16, 16, 1) for _ in range(3)))
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def stem_last() -> nn.Module:
    return StemLast()


MODELS = {"resnet20": resnet20, "mobile": mobile, "vgg": vgg, "stem_last": stem_last}


def lived_in(model: nn.Module) -> nn.Module:
    """Normalisations with statistics and scales as training leaves them, all different."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.2
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.2)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def build():
    """A model by name, the same each time."""

    def made(name: str) -> nn.Module:
        torch.manual_seed(0)
        return lived_in(MODELS[name]())

    return made


@pytest.fixture
def batch() -> Tensor:
    return torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(1))
