"""Channels that go together."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

from edgekd.compress.pruning.cuts import channels_of
from edgekd.compress.pruning.groups import find_groups, importances, prune_channels
from edgekd.tasks._protocol import InputSpec

SHAPE = (3, 32, 32)


@pytest.mark.slow
def test_zero_padded_shortcuts_leave_only_inner_channels(build):
    groups, left_out = find_groups(build("resnet20"), InputSpec(shape=SHAPE))
    assert [group.makers for group in groups] == [(f"layer{s}.{b}.conv1",) for s in (1, 2, 3) for b in (0, 1, 2)]
    assert [group.size[0] for group in groups] == [32, 32, 32, 16, 16, 16, 8, 8, 8]
    assert dict(left_out)["linear"] == "its channels are the model's output"
    assert "shortcut" in dict(left_out)["conv1"]


@pytest.mark.slow
def test_depthwise_channels_go_with_their_expansion(build):
    groups, left_out = find_groups(build("mobile"), InputSpec(shape=SHAPE))
    makers = {group.makers for group in groups}
    assert ("1.0.body.6", "1.1.body.6", "1.2.body.6") in makers  # tied by their shortcuts
    assert ("1.1.body.0",) in makers
    assert not any("body.3" in name for group in groups for name in group.makers)
    assert [layer for layer, _ in left_out] == ["6"]


def test_a_chain_is_pruned_through_its_flattening(build):
    groups, left_out = find_groups(build("vgg"), InputSpec(shape=SHAPE))
    assert [group.makers[0] for group in groups] == ["0.0", "0.3", "2.0", "5"]
    assert groups[-1].size == (1, 1)
    assert [layer for layer, _ in left_out] == ["7"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "mobile", "vgg"])
def test_pruning_all_groups_is_zeroing_them(build, batch, name):
    model = build(name)
    before = copy.deepcopy(model.state_dict())
    groups, _ = find_groups(model, InputSpec(shape=SHAPE))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    pruned, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    prune_channels(pruned, groups, {group.makers[0]: torch.arange(0, group.channels, 2) for group in groups})
    graph = torch_pruning.DependencyGraph().build_dependency(zeroed.requires_grad_(True), batch, verbose=False)
    modules = dict(zeroed.named_modules())
    with torch.no_grad():
        for group in groups:
            root = modules[group.makers[0]]
            odd = list(range(1, group.channels, 2))
            found = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, odd)
            for dep, indices in found:
                if graph.is_out_channel_pruning_fn(dep.handler) and isinstance(dep.target.module, nn.Module):
                    for parameter in dep.target.module.parameters(recurse=False):
                        parameter[[int(i) for i in indices]] = 0
        assert torch.allclose(pruned(batch), zeroed(batch), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters()) * 0.6


def test_importance_is_a_score_a_channel_that_sees_small_ones(build):
    model = build("vgg")
    groups, _ = find_groups(model, InputSpec(shape=SHAPE))
    with torch.no_grad():
        model[2][0].weight[5] *= 1e-3
        model[5].weight[:, 5 * 16 : 6 * 16] *= 1e-3
    scores = importances(model, groups)
    assert [len(score) for score in scores] == [group.channels for group in groups]
    assert int(scores[2].argmin()) == 5


class Odd(nn.Module):
    """A reshape with its sizes written out, a grouped convolution, and one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fixed = nn.Conv2d(8, 4, 3, padding=1)
        self.single = nn.Conv2d(4, 1, 1)
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fixed(torch.relu(self.grouped(torch.relu(self.first(x)))))
        x = torch.relu(x).reshape(-1, 2, 2, 32, 32).reshape(-1, 4, 32, 32)
        return self.last(functional.adaptive_avg_pool2d(self.single(x), 8).reshape(-1, 64))


def test_what_cannot_be_pruned_is_named():
    torch.manual_seed(0)
    groups, left_out = find_groups(Odd().eval(), InputSpec(shape=SHAPE))
    reasons = dict(left_out)
    assert "grouped" in reasons["first"]
    assert "fails without some of its channels" in reasons["fixed"]
    assert reasons["single"] == "it has a single channel"
    assert reasons["last"] == "its channels are the model's output"
    assert not groups


@pytest.mark.slow
def test_nothing_is_shared_between_two_models(build):
    one, _ = find_groups(build("resnet20"), InputSpec(shape=SHAPE))
    find_groups(build("mobile"), InputSpec(shape=SHAPE))
    again, _ = find_groups(build("resnet20"), InputSpec(shape=SHAPE))
    assert one == again


def test_channels_of_layers():
    assert channels_of(nn.Conv2d(3, 7, 1)) == 7
    assert channels_of(nn.Linear(3, 5)) == 5


def test_norms_without_parameters_and_shared_slopes_are_no_obstacle():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, affine=False), nn.PReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(1)
    )
    model[1].running_mean.normal_()
    groups, _ = find_groups(model.eval(), InputSpec(shape=SHAPE))
    assert [group.makers for group in groups] == [("0",)]


def test_a_group_norm_keeps_its_groups_whole():
    def normed(groups: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.GroupNorm(groups, 32), nn.Conv2d(32, 8, 3)).eval()

    groups, _ = find_groups(normed(8), InputSpec(shape=SHAPE))
    assert [(group.makers, group.multiple) for group in groups] == [(("0",), 8)]
    groups, left_out = find_groups(normed(32), InputSpec(shape=SHAPE))
    assert groups == []
    assert "a group for each of its channels" in dict(left_out)["0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "mobile", "vgg"])
def test_cuts_of_the_whole_score_and_prune_as_the_dependency_graph_does(build, batch, name):
    model = build(name)
    groups, _ = find_groups(model, InputSpec(shape=SHAPE))
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs.requires_grad_(True), batch, verbose=False)
    score = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer=None)
    modules, keep = dict(theirs.named_modules()), {}
    for group, found in zip(groups, importances(model, groups), strict=True):
        root = modules[group.makers[0]]
        out = graph.get_pruner_of_module(root).prune_out_channels
        expected = score(graph.get_pruning_group(root, out, list(range(group.channels)))).double()
        assert torch.allclose(found, expected, rtol=1e-5)
        keep[group.makers[0]] = torch.argsort(found, descending=True)[: group.channels // 2].sort().values
    for group in groups:
        root = modules[group.makers[0]]
        gone = sorted(set(range(group.channels)) - set(keep[group.makers[0]].tolist()))
        graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, gone).prune()
    prune_channels(ours, groups, keep)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


class Tokens(nn.Module):
    """A vision transformer as people write it: a class token and positions that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.last(self.block(x)[:, 0])


def test_parameters_of_the_model_itself_stay_whole_and_are_named():
    torch.manual_seed(0)
    groups, left_out = find_groups(Tokens().eval(), InputSpec(shape=SHAPE))
    assert [group.makers for group in groups] == [("block.linear1",)]
    assert "stays whole" in dict(left_out)["patches"]


class Scaled(nn.Module):
    """A residual block whose branch has a learned scale a channel (LayerScale)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.scale = nn.Parameter(torch.full((16, 1, 1), 0.5))
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.scale * self.second(torch.relu(self.first(x)))
        return self.last(x.mean((2, 3)))


def test_a_learned_scale_leaves_its_stream_whole_and_the_rest_is_pruned():
    torch.manual_seed(0)
    groups, left_out = find_groups(Scaled().eval(), InputSpec(shape=SHAPE))
    assert [group.makers for group in groups] == [("first",)]
    assert dict(left_out)["stem"] == "`scale` is a parameter of the model itself, and stays whole"


class Recurrent(nn.Module):
    """A convolution whose columns a recurrent layer reads one after another."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.memory = kind(24, 20, batch_first=True)
        self.last = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.relu(self.first(x))).mean(2).transpose(1, 2)
        return self.last(self.memory(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers_stay_whole_and_what_lies_before_is_pruned(kind):
    torch.manual_seed(0)
    groups, left_out = find_groups(Recurrent(kind).eval(), InputSpec(shape=SHAPE))
    assert [group.makers for group in groups] == [("first",)]
    assert dict(left_out)["second"] == "`memory` is a recurrent layer, and stays whole"


def test_a_model_that_cannot_be_followed_is_left_whole():
    class Switched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 10, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.last(torch.relu(self.first(x))).mean((2, 3))

    groups, left_out = find_groups(Switched().eval(), InputSpec(shape=SHAPE))
    assert groups == []
    assert {layer for layer, _ in left_out} == {"first", "last"}


class Gated(nn.Module):
    """Half of a convolution's channels gates the other half (GLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 1)
        self.conv2, self.last = nn.Conv2d(16, 24, 1), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.conv(torch.relu(self.stem(x))).chunk(2, 1)
        return self.last(torch.relu(self.conv2(a * torch.sigmoid(b))).mean((2, 3)))


class GatedTokens(nn.Module):
    """A feed-forward layer over patches, gated as SwiGLU does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 24, 4, 4), nn.Linear(24, 64)
        self.conv2, self.last = nn.Linear(32, 24), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        a, b = self.conv(x).chunk(2, -1)
        return self.last((x + self.conv2(functional.silu(a) * b)).mean(1))


@pytest.mark.parametrize("kind", [Gated, GatedTokens])
def test_channels_that_gate_others_stay_whole_and_what_lies_around_is_pruned(kind):
    torch.manual_seed(0)
    groups, left_out = find_groups(kind().eval(), InputSpec(shape=SHAPE))
    assert groups[0].makers[0] == "stem"
    assert all("conv" not in group.makers for group in groups)
    assert "its channels" in dict(left_out)["conv"]
