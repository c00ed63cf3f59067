"""A teacher that can be differentiated, and a task whose training images nobody may see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.distill.inputs import Normalisation
from edgekd.records import digest_bytes
from edgekd.students.resnet import ResNetModule
from edgekd.students.trunk import Sizes
from edgekd.tasks._protocol import InputSpec
from edgekd.testing.fakes.withheld import Withheld


class OpenBars:
    """An untrained network that answers as a teacher does."""

    name, classes = "open bars", 3

    def __init__(self, spec: InputSpec, module: nn.Module | None = None) -> None:
        torch.manual_seed(5)
        self.module = (module or ResNetModule(Sizes(1, [8, 8], [1, 1], 1), 3)).eval().requires_grad_(False)
        self.normalise = Normalisation(spec)

    def digest(self) -> str:
        return digest_bytes(b"open bars")

    def network(self) -> nn.Module:
        return self.module

    def prepared(self, batch: torch.Tensor) -> torch.Tensor:
        return self.normalise(batch)

    def rows(self, answers: torch.Tensor) -> torch.Tensor:
        return answers

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.module(self.normalise(batch))

    def score(self, outputs: Any, labels: Any) -> Any:
        return self.task.score(outputs, labels)


@pytest.fixture
def open_teacher(task: Any) -> OpenBars:
    """For three classes of 8 x 8 images."""
    return OpenBars(task.spec.input)


@pytest.fixture
def open_context(context: Callable[..., Any], open_teacher: OpenBars, task: Any) -> Callable[..., Any]:
    """A context with that teacher, for a task of which validation images alone are given away."""

    def make(folder: Path, **changes: Any) -> Any:
        return context(folder, **{"teacher": open_teacher, "task": Withheld(task), **changes})

    return make
