"""Residual blocks that can be left out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.compress.pruning.blocks import drop_blocks, find_stages
from edgekd.tasks._protocol import InputSpec

SHAPE = (3, 32, 32)


def test_stages_of_a_residual_network(build):
    stages = find_stages(build("resnet20"), InputSpec(shape=SHAPE))
    assert [(stage.name, stage.counts, stage.fixed) for stage in stages] == [
        ("layer1", (1, 2, 3), 0),
        ("layer2", (1, 2, 3), 1),
        ("layer3", (1, 2, 3), 1),
    ]
    assert set(stages[1].droppable) == {"layer2.1", "layer2.2"}
    assert all(stage.substitutes == ("identity",) * len(stage.droppable) for stage in stages)


def test_stages_that_share_one_sequential_are_told_apart(build):
    stages = find_stages(build("mobile"), InputSpec(shape=SHAPE))
    assert [(stage.name, set(stage.droppable), stage.counts) for stage in stages] == [
        ("1_1", {"1.1", "1.2"}, (1, 2, 3)),
        ("1_2", {"1.4"}, (1, 2)),
    ]


def test_a_chain_has_no_blocks_even_where_shapes_agree(build):
    assert find_stages(build("vgg"), InputSpec(shape=SHAPE)) == []


def test_the_smallest_branch_goes_first(build):
    model = build("resnet20")
    with torch.no_grad():
        for name, scale in (("layer1.0", 1.0), ("layer1.1", 0.01), ("layer1.2", 0.1)):
            model.get_submodule(name).bn2.weight.fill_(scale)
            model.get_submodule(name).bn2.bias.zero_()
    assert find_stages(model, InputSpec(shape=SHAPE))[0].droppable == ("layer1.1", "layer1.2", "layer1.0")


@pytest.mark.parametrize("name", ["resnet20", "mobile"])
def test_leaving_out_a_branch_of_nothing_changes_nothing(build, batch, name):
    model = build(name)
    stage = find_stages(model, InputSpec(shape=SHAPE))[0]
    with torch.no_grad():
        for parameter in model.get_submodule(stage.droppable[0]).parameters():
            parameter.zero_()
        expected = model(batch)
        shorter = copy.deepcopy(model)
        stage = next(found for found in find_stages(model, InputSpec(shape=SHAPE)) if found.name == stage.name)
        drop_blocks(shorter, stage, stage.counts[-2])
        assert torch.allclose(shorter(batch), expected, atol=1e-5)


def test_as_many_blocks_remain_as_asked(build):
    model = build("resnet20")
    stage = find_stages(model, InputSpec(shape=SHAPE))[1]
    for keep in stage.counts:
        shorter = copy.deepcopy(model)
        drop_blocks(shorter, stage, keep)
        assert sum(not isinstance(child, nn.Identity) for child in shorter.layer2) == keep
    for keep in (0, 4):
        with pytest.raises(ValueError, match="1 to 3 blocks"):
            drop_blocks(model, stage, keep)


class Activated(nn.Module):
    """``act(x + f(x))``."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x + self.branch(x))


@pytest.mark.parametrize(
    ("activation", "substitute"), [(nn.Identity(), "identity"), (nn.ReLU(), "relu"), (nn.SiLU(), "silu")]
)
def test_an_activation_after_the_sum_stays(activation, substitute):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Activated(activation), nn.Flatten(), nn.Linear(4 * 64, 10)).eval()
    assert find_stages(model, InputSpec(shape=(3, 8, 8)))[0].substitutes == (substitute,)


def test_a_function_between_shapes_that_agree_is_no_block():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(192, 4)).eval()
    assert find_stages(model, InputSpec(shape=(3, 8, 8))) == []
