"""A trained model with all its smaller ones in it: the contract, and layers that count masked channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.compress.pruning.family import Pruned
from edgekd.errors import ConfigurationError
from edgekd.students.supernet.choices import Choices
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.supernet import SupernetContract

SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
SMALL = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False), NORM(2 * width)
        self.deep = nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width)
        self.two, self.norm2 = nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        inner = self.deep(torch.relu(self.norm1(self.one(x))))
        return torch.relu(x + self.norm2(self.two(torch.relu(inner))))


def build():
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    blocks = nn.Sequential(Block(8), Block(8))
    return nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


def small(folder, norm="nn.BatchNorm2d", **options):
    code = SMALL.replace("NORM", norm)
    names: dict = {}
    exec(code, names)
    torch.manual_seed(0)
    np.savez(folder / "small.npz", **{k: v.numpy() for k, v in names["build"]().state_dict().items()})
    (folder / "small_model.py").write_text(code)
    chosen = {"model": "small_model.py:build", "weights": "small.npz", "ratios": [0.5, 1.0], "round_to": 2, **options}
    return Pruned.model_validate(chosen, context={"folder": folder})


@pytest.mark.slow
class TestPrunedSupernet(SupernetContract):
    @pytest.fixture(params=["height", "group"])
    def make_family(self, request, tmp_path):
        return lambda: small(tmp_path, ratio_per=request.param)


def test_it_begins_with_what_the_model_has_learned(tmp_path):
    family = small(tmp_path)
    space = family.space(SPEC)
    images = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    largest = space.at(space.size - 1)
    with torch.no_grad():
        found = family.supernet(SPEC).eval()(images, Choices(space.axes).picks(largest))
        torch.testing.assert_close(found, family.build(largest, SPEC)(images), rtol=1e-5, atol=1e-5)


def test_layers_that_would_count_masked_channels_are_refused(tmp_path):
    family = small(tmp_path, "(lambda n: nn.GroupNorm(2, n))", ratio_per="group", round_to=2)
    with pytest.raises(ConfigurationError, match="normalises over channels"):
        family.supernet(SPEC)
