"""Models of several inputs or answers, and one whose path depends on values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["early_exit", "two_inputs", "two_outputs"]


def _trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
    )


class TwoInputs(nn.Module):
    """An image, and four numbers about it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.numbers, self.classes = _trunk(), nn.Linear(4, 8), nn.Linear(40, 10)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        return self.classes(torch.cat((self.trunk(image).mean((2, 3)), torch.relu(self.numbers(numbers))), dim=1))


class TwoOutputs(nn.Module):
    """A class and two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classes, self.numbers = _trunk(), nn.Linear(32, 10), nn.Linear(32, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(image).mean((2, 3))
        return self.classes(features), self.numbers(features)


class EarlyExit(nn.Module):
    """Stops after the first stage where that is sure enough (Teerapittayanon et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.early = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 10)
        self.second, self.late = nn.Conv2d(16, 32, 3, 2, 1), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.first(image))
        answer = self.early(features.mean((2, 3)))
        if answer.softmax(1).max() > 0.5:
            return answer
        return self.late(torch.relu(self.second(features)).mean((2, 3)))


def two_inputs() -> nn.Module:
    """An image and a vector."""
    return TwoInputs()


def two_outputs() -> nn.Module:
    """A tuple of two answers."""
    return TwoOutputs()


def early_exit() -> nn.Module:
    """A branch on a value."""
    return EarlyExit()
