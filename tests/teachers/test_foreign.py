"""What teachers share whose network comes from somebody else: one that is built when it is first asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.foreign import ForeignTeacher
from edgekd.testing.contracts.teacher import TeacherContract


class Late(ForeignTeacher):
    """As timm's are: nothing is built before it is needed."""

    _network: nn.Module | None = PrivateAttr(None)

    @property
    def name(self) -> str:
        return "late"

    def network(self) -> nn.Module:
        if self._network is None:
            torch.manual_seed(0)
            made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
            self._network = made.eval().requires_grad_(False)
        return self._network

    def _load(self) -> None:
        self.network()

    def _answer(self, views: Tensor) -> Tensor:
        answers: Tensor = self.network()(views)
        return answers

    def _identity(self) -> Any:
        return "late"


class TestLate(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec: TaskSpec) -> TaskSpec:
        return small_spec

    @pytest.fixture
    def make_teacher(self) -> Callable[[], Teacher]:
        return lambda: Late(mean=(120.0,), std=(60.0,))
