"""Which points a loss on inner activations is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distill.layer_matching import Networks, match_layers, teacher_points
from edgekd.distill.losses.attention import Attention
from edgekd.distill.losses.crd import CRD
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.losses.fitnet import FitNet
from edgekd.distill.losses.rkd import RKD
from edgekd.distill.losses.similarity import Similarity
from edgekd.students.points import layout_of, tapped
from edgekd.tasks._protocol import InputSpec


def network(*channels, flat=False):
    """A stage for each number of channels, each half as large as the one before."""
    parts, before = [], 1
    for at, after in enumerate(channels):
        parts.append(nn.Sequential(nn.Conv2d(before, after, 3, 2 if at else 1, 1), nn.ReLU()))
        before = after
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *([] if flat else [nn.Linear(before, 3)]))


@pytest.fixture
def networks():
    teacher = network(8, 12, 16)
    return Networks(
        layout_of(network(4, 6), InputSpec(shape=(1, 16, 16))),
        layout_of(teacher, InputSpec(shape=(1, 16, 16))),
        teacher,
        100,
        3,
    )


def names(site):
    return [(own.name, other.name) for own, other in site.pairs]


def test_stages_are_paired_from_the_end(networks):
    assert names(match_layers("fitnet", FitNet(), networks)) == [("0.1", "1.1"), ("1.1", "2.1")]
    assert names(match_layers("fitnet", FitNet(points="last stage"), networks)) == [("1.1", "2.1")]


def test_points_by_name_go_from_high_resolution_to_low(networks):
    loss = FitNet(points=(("1.1", "2.1"), ("0.0", "0.1")))
    assert names(match_layers("fitnet", loss, networks)) == [("0.0", "0.1"), ("1.1", "2.1")]


def test_a_site_knows_the_teachers_classifier(networks):
    site = match_layers("rkd", RKD(), networks)
    assert names(site) == [("penultimate", "penultimate")]
    weight, bias = site.classifier
    assert (tuple(weight.shape), tuple(bias.shape)) == ((3, 16), (3,))
    assert (site.samples, site.classes, site.student_classifier, site.student_width) == (100, 3, "4", 6)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (FitNet(points=(("0.1", "7"),)), "no point of the teacher `7`"),
        (FitNet(points=(("0.1", "penultimate"),)), "a map can't be compared with a vector"),
        (Attention(points="penultimate"), "compares maps"),
    ],
)
def test_what_can_not_be_placed_is_reported(networks, loss, reason):
    found = match_layers("it", loss, networks)
    assert isinstance(found, str)
    assert found.startswith("it: ")
    assert reason in found


@pytest.mark.parametrize("kind", [Similarity, RKD, CRD])
def test_some_losses_pair_a_map_with_a_vector(networks, kind):
    site = match_layers("it", kind(points=(("1.1", "penultimate"),)), networks)
    assert names(site) == [("1.1", "penultimate")]
    batch = Batch(torch.arange(4), torch.zeros(4, dtype=torch.int64))
    own = torch.randn(4, 6, 8, 8, requires_grad=True)
    kind().criterion(site)([own], [torch.randn(4, 16)], batch).backward()
    assert own.grad.abs().max() > 0


def test_a_network_without_a_classifier_has_nothing_to_compare(networks):
    teacher = network(8, 3, flat=True)
    other = Networks(networks.student, layout_of(teacher, InputSpec(shape=(1, 16, 16))), teacher, 100, 3)
    assert "the teacher has 2 stages and no linear classifier" in match_layers("rkd", RKD(), other)


def test_what_a_teacher_may_be_asked_is_known_without_a_student(networks):
    assert [point.name for point in teacher_points(FitNet(), networks.teacher)] == ["0.1", "1.1", "2.1"]
    assert [point.name for point in teacher_points(RKD(), networks.teacher)] == ["penultimate"]
    assert [point.shape for point in teacher_points(FitNet(points="logits"), networks.teacher)] == [(3,)]
    assert torch.is_tensor(networks.classifier[0])


class Tokens(nn.Module):
    """Blocks on tokens in a row."""

    def __init__(self, width, depth):
        super().__init__()
        self.embed, self.blocks = nn.Linear(2, width), nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
        self.classes = nn.Linear(width, 3)

    def forward(self, tokens):
        return self.classes(self.blocks(self.embed(tokens)).mean(1))


def between(student, teacher, shape=(5, 2)):
    return Networks(
        layout_of(student, InputSpec(shape=shape)), layout_of(teacher, InputSpec(shape=shape)), teacher, 100, 3
    )


@pytest.mark.parametrize(
    ("depths", "pairs"),
    [((2, 6), [(0, 2), (1, 5)]), ((3, 4), [(0, 0), (1, 1), (2, 3)]), ((4, 2), [(1, 0), (3, 1)]), ((1, 3), [(0, 2)])],
)
def test_blocks_are_paired_evenly(depths, pairs):
    student, teacher = (Tokens(width, depth) for width, depth in zip((6, 8), depths, strict=True))
    site = match_layers("fitnet", FitNet(), between(student, teacher))
    assert names(site) == [(f"blocks.{own}", f"blocks.{other}") for own, other in pairs]
    asked = [point.name for point in teacher_points(FitNet(), layout_of(teacher, InputSpec(shape=(5, 2))))]
    assert {other for _, other in names(site)} <= set(asked)


@pytest.mark.parametrize("loss", [FitNet(), Attention(), RKD(points="last stage"), Similarity()])
def test_losses_compare_tokens(loss):
    student, teacher = Tokens(6, 2), Tokens(8, 4)
    networks = between(student, teacher)
    site = match_layers("loss", loss, networks)
    criterion, inputs = loss.criterion(site), torch.randn(4, 5, 2)
    with (
        tapped(student, networks.student, [own.name for own, _ in site.pairs]) as seen,
        tapped(teacher, networks.teacher, [other.name for _, other in site.pairs]) as hints,
    ):
        student(inputs), teacher(inputs)
    own, others = [seen[one.name] for one, _ in site.pairs], [hints[two.name].detach() for _, two in site.pairs]
    criterion(own, others, Batch(torch.arange(4), torch.zeros(4, dtype=torch.int64))).backward()
    assert student.embed.weight.grad.abs().sum() > 0


def test_tokens_in_a_row_are_no_map():
    reason = match_layers(
        "fitnet",
        FitNet(points=(("blocks.0", "0.1"),)),
        Networks(
            layout_of(Tokens(6, 1), InputSpec(shape=(5, 2))),
            layout_of(network(4), InputSpec(shape=(1, 16, 16))),
            network(4),
            100,
            3,
        ),
    )
    assert "tokens in a row can't be compared with a map of a picture" in reason
