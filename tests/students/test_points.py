"""Where a network can be looked into."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import UnknownName
from edgekd.students.points import layout_of, tapped
from edgekd.students.resnet import ResNet
from edgekd.students.transformer import Transformer
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.shapes import Shapes


class Twice(nn.Module):
    """One convolution called twice, a functional ReLU at the end of each block, a classifier that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 1)
        self.pool = nn.MaxPool2d(2)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, images):
        features = self.shared(self.shared(self.stem(images)))
        return nn.functional.linear(self.pool(features).mean((2, 3)), self.weight)


def test_stages_are_the_last_of_each_resolution_and_begin_behind_the_first_weights():
    network = nn.Sequential(
        nn.Identity(),
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    layout = layout_of(network, InputSpec(shape=(1, 8, 8)))
    assert [(point.name, point.shape) for point in layout.stages] == [("1.1", (4, 8, 8)), ("2.1", (6, 4, 4))]
    assert "0" not in layout.points
    assert layout.classifier == "5"
    assert layout.at("penultimate").shape == (6,)
    assert layout.at("logits").shape == (3,)
    with pytest.raises(UnknownName, match=r"did you mean `2.1`"):
        layout.at("2.11")


def test_a_network_without_a_linear_layer_at_its_end_has_no_penultimate():
    layout = layout_of(Twice(), InputSpec(shape=(1, 8, 8)))
    assert layout.classifier == ""
    assert "penultimate" not in layout.points
    assert [point.name for point in layout.stages] == ["shared", "pool"]


class Forked(nn.Module):
    """Two maps of one trunk; behind the trunk, each head has a layer of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.trunk, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1)
        self.inner, self.one, self.other = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1), nn.Conv2d(6, 3, 1)
        self.kind = kind

    def forward(self, images):
        shared = self.deep(self.trunk(images))
        one, other = self.one(self.inner(shared)), self.other(shared)
        return {"mapping": {"one": one, "other": other}, "tuple": (one, other), "tensor": one}[self.kind]


@pytest.mark.parametrize(("kind", "last"), [("mapping", "deep"), ("tuple", "deep"), ("tensor", "inner")])
def test_heads_are_no_stages(kind, last):
    layout = layout_of(Forked(kind), InputSpec(shape=(1, 8, 8)))
    assert [point.name for point in layout.stages] == ["trunk", last]
    assert layout.at("other").shape == (3, 4, 4), "by name it can be looked at"


def test_stages_of_a_student_with_three_heads_are_its_blocks():
    task = Shapes(train=4, test=1, validation=1, calibration=1, side=32)
    family = ResNet.model_validate({"space": {"widths": [8, 8, 8], "depths": [1, 1, 1]}})
    module = family.build(family.space(task.spec).at(0), task.spec)
    assert [point.name for point in layout_of(module, task.spec.input).stages] == [
        "blocks.0",
        "blocks.1",
        "blocks.2",
    ]


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_statistics_are_left_alone(training):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2)).train(training)
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layout_of(network, InputSpec(shape=(1, 8, 8)))
    assert network.training is training
    assert not network[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_taps_see_the_latest_pass_with_its_gradient_and_leave_nothing():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    layout, images = layout_of(network, InputSpec(shape=(1, 4, 4))), torch.randn(3, 1, 4, 4)
    with tapped(network, layout, ["0", "penultimate", "logits"]) as seen:
        network(torch.randn(5, 1, 4, 4))
        network(images)
        assert torch.equal(seen["0"], network[0](images))
        assert torch.equal(seen["penultimate"], network[0](images).mean((2, 3)))
        seen["penultimate"].sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    with pytest.raises(UnknownName), tapped(network, layout, ["nowhere"]):
        pass
    assert not any(part._forward_hooks for part in network.modules())


def encoder(depth: int = 2) -> nn.Module:
    space = {"width": 16, "depth": depth, "heads": 1, "mlp_ratio": 1, "patch": [4], "head_width": 4}
    spec = TaskSpec(name="t", input=InputSpec(shape=(1, 8, 16)), head=HeadSpec(classes=3), data="0" * 64)
    family = Transformer.model_validate({"space": space})
    return family.build(family.space(spec).at(0), spec)


def test_tokens_of_a_picture_are_a_map_of_its_aspect():
    network, images = encoder(), torch.randn(3, 1, 8, 16)
    layout = layout_of(network, InputSpec(shape=(1, 8, 16)))
    assert [(point.name, point.shape) for point in layout.blocks] == [
        ("encoder.blocks.0", (16, 2, 4)),
        ("encoder.blocks.1", (16, 2, 4)),
    ]
    assert [(point.name, point.shape) for point in layout.stages] == [
        ("encoder.embed.layers.0", (8, 4, 8)),
        ("encoder.norm", (16, 2, 4)),
    ]
    with tapped(network, layout, ["encoder.embed", "encoder.embed.project", "penultimate"]) as seen:
        network(images)
    assert torch.equal(seen["encoder.embed"], seen["encoder.embed.project"])
    assert seen["penultimate"].shape == (3, 16)


class Ids(nn.Module):
    """An embedding of token ids, which come as floats here."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.classes = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.classes(self.norm(self.embed(ids.long())).mean(1))


def test_tokens_of_no_picture_are_a_row():
    network = Ids()
    layout = layout_of(network, InputSpec(shape=(5,)))
    assert (layout.at("embed").shape, layout.at("norm").shape) == ((4, 5, 1), (4, 5, 1))
    ids = torch.tensor([[1.0, 2, 3, 4, 5], [6.0, 0, 0, 0, 0]])
    with tapped(network, layout, ["embed"]) as seen:
        network(ids)
    assert torch.equal(seen["embed"][..., 0].transpose(1, 2), network.embed(ids.long()))


def test_a_signals_channels_are_its_first_axis():
    network = nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    layout, signal = layout_of(network, InputSpec(shape=(2, 8))), torch.randn(3, 2, 8)
    assert layout.at("1").shape == (6, 8, 1)
    with tapped(network, layout, ["0"]) as seen:
        network(signal)
    assert torch.equal(seen["0"][..., 0], network[0](signal))


class Embedded(nn.Module):
    """Pixels as tokens."""

    def __init__(self, channels):
        super().__init__()
        self.project = nn.Conv2d(1, channels, 1)

    def forward(self, images):
        return self.project(images).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("channels", "shape"), [(6, (6, 4, 4)), (16, None)])
def test_where_nothing_gives_the_channels_there_is_no_point(channels, shape):
    network = nn.Sequential(Embedded(channels), nn.Flatten(), nn.Linear(16 * channels, 2))
    found = layout_of(network, InputSpec(shape=(1, 4, 4))).points.get("0")
    assert (found and found.shape) == shape
