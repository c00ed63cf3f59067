"""A search on paper whose choice is really trained: a toy family on the tiny task of bars, latencies scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distill.stage import Distill
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.space import Arch, Space
from edgekd.search.trials.sampler import DifferentiableSampler
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.students.supernet.block_costs import BlockCost
from edgekd.testing.fakes.bars import BarTask

OPTIONS = DifferentiableOptions(table=12, epochs=6, tries=4)


class ToyNetwork(nn.Module):
    """One hidden layer: its width is the axis `width`, and the others make it surer of itself."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 3)
        choices = {axis.name: torch.tensor(axis.choices) for axis in space.axes}
        self.kept = (torch.arange(64) < choices["width"][:, None]).float()
        self.strength = {name: choices[name].float() for name in ("depth", "wide")}

    def forward(self, images: Tensor, picks: Any) -> Tensor:
        hidden = torch.relu(self.one(images.flatten(1))) * (picks["width"] @ self.kept)
        sure = sum(picks[name] @ row for name, row in self.strength.items())
        answer: Tensor = self.two(hidden) * (0.3 * sure)
        return answer

    def extract(self, arch: Arch) -> nn.Module:
        raise NotImplementedError


class ToyFamily:
    """Costs are those on paper."""

    name: ClassVar[str] = "resnet"
    inherits: ClassVar[bool] = False

    def __init__(self, space: Space, macs: Callable[[Arch], int]) -> None:
        self._space, self._macs = space, macs

    def space(self, spec: Any) -> Space:
        return self._space

    def build(self, arch: Arch, spec: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()

    def supernet(self, spec: Any) -> ToyNetwork:
        return ToyNetwork(self._space)

    def block_costs(self, spec: Any) -> tuple[BlockCost, ...]:
        shape = [len(axis.choices) for axis in self._space.axes]
        macs = np.array([self._macs(arch) for arch in self._space], dtype=float).reshape(shape)
        counts = {"macs": macs, "bytes": macs / 20, "weights": macs / 100, "operators": np.ones(shape)}
        return (BlockCost("all", tuple(axis.name for axis in self._space.axes), counts),)


def bandwidth(working_bytes: int) -> Figure:
    return Figure(
        metric="memory.bandwidth",
        value=1e9,
        unit="B/s",
        kind=EvidenceKind.MEASURED,
        subject="f" * 64,
        method="on paper",
    )


def cost_on_paper(arch: Arch) -> int:
    return int(arch["depth"] * arch["width"] ** 2 * arch["wide"] * 100)


@pytest.fixture
def make_differentiable(make_lab: Callable[..., Any]) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        options = changes.pop("differentiable", OPTIONS)
        lab = make_lab(
            **{
                "sampler": "differentiable",
                "differentiable": options,
                "trials": options.tries,
                "largest_first": False,
                **changes,
            }
        )
        lab.sampler = DifferentiableSampler()
        lab.task, lab.bandwidth = BarTask(), bandwidth
        lab.family = ToyFamily(lab.plan.space, cost_on_paper)
        lab.recipe = (
            Distill.model_validate({"loss": "ce", "epochs": 4, "batch_size": 30, "ema": 0, "precision": "float32"}),
        )
        return lab

    return make
