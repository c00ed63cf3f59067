from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.losses.simkd import Reused, SimKD
from edgekd.errors import ConfigurationError
from edgekd.students.mobilenet import MobileNet
from edgekd.students.points import Point, layout_of, tapped
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.feature_loss import FeatureLossContract

BATCH = Batch(torch.arange(6), torch.arange(6))


class Head(nn.Module):
    """The end of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)

    def forward(self, maps):
        return self.head(maps.mean((2, 3)))


class TestSimKD(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return SimKD()

    @pytest.fixture(params=[(4, 2), (2, 4)])
    def site(self, request):
        """One pair; either network may have the higher resolution."""
        own, other = request.param
        generator = torch.Generator().manual_seed(3)
        return Site(
            pairs=((Point(name="s", shape=(4, own, own)), Point(name="t", shape=(7, other, other))),),
            samples=12,
            classes=5,
            classifier=(torch.randn(5, 7, generator=generator), torch.randn(5, generator=generator)),
            student_classifier="head",
            student_width=4,
        )

    @pytest.fixture
    def criterion(self, loss, site):
        """Attached: the projector is the student's."""
        assert loss.problem(site) == ""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            criterion = loss.criterion(site)
            criterion.attach(Head().double())
            return criterion.eval()

    def test_state_survives(self, loss, site, criterion, inputs):
        """It has none of its own: the projector is in the student's, so that one has to be filled."""
        assert list(criterion.parameters()) == []
        assert criterion.state_dict() == {}
        student, again = Head().double(), loss.criterion(site)
        again.attach(student)
        student.head.load_state_dict(criterion.reused[0].state_dict())
        assert torch.equal(again(*inputs), criterion(*inputs))

    def test_is_the_papers_formula(self, criterion, inputs):
        student, teacher, batch = inputs
        own, hint = student[0].detach().numpy(), teacher[0].numpy()
        side = min(own.shape[2], hint.shape[2])
        own, hint = (m.reshape(*m.shape[:2], side, m.shape[2] // side, side, -1).mean((3, 5)) for m in (own, hint))
        weight, bias = (tensor.detach().numpy() for tensor in (criterion.reused[0].weight, criterion.reused[0].bias))
        projected = np.einsum("tc,nchw->nthw", weight, own) + bias[:, None, None]
        assert float(criterion(student, teacher, batch).detach()) == pytest.approx(((hint - projected) ** 2).mean())

    def test_answers_are_the_teachers_classifiers(self, criterion, site):
        reused = criterion.reused[0]
        vectors = torch.randn(3, 4, dtype=torch.float64)
        weight, bias = (tensor.double() for tensor in site.classifier)
        torch.testing.assert_close(reused(vectors), (vectors @ reused.weight.T + reused.bias) @ weight.T + bias)


@pytest.fixture(params=["resnet", "mobilenet"])
def student(request):
    """One of three blocks, whose BatchNorms have seen something."""
    torch.manual_seed(0)
    spec = TaskSpec(name="t", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
    space = {"widths": [8, 16, 24], "depths": [1, 1, 1]}
    if request.param == "mobilenet":
        space = {"widths": [8, 16, 6], "depths": [1, 1, 1], "expansions": [1, 2, 2]}  # the last is four times as wide
    family = (ResNet if request.param == "resnet" else MobileNet).model_validate({"space": space})
    module = family.build(family.space(spec).at(0), spec).train()
    module(torch.randn(32, 3, 16, 16))
    return module.eval()


@pytest.fixture
def site(student):
    classifier = (torch.randn(10, 40), torch.randn(10))
    layout = layout_of(student, InputSpec(shape=(3, 16, 16)))
    return Site(
        pairs=((layout.stages[-1], Point(name="t", shape=(40, 4, 4))),),
        samples=32,
        classes=10,
        classifier=classifier,
        student_classifier=layout.classifier,
        student_width=layout.points["penultimate"].shape[0],
    )


def test_folding_is_exact_and_leaves_the_students_own_layers(student, site):
    before = {name: tensor.shape for name, tensor in student.state_dict().items()}
    assert SimKD().problem(site) == ""
    criterion = SimKD().criterion(site)
    criterion.attach(student)
    assert isinstance(student.head, Reused)
    images = torch.randn(8, 3, 16, 16)
    attached = student(images)
    copied = copy.deepcopy(student)
    criterion.detach_from(copied)
    assert type(copied.head) is nn.Linear
    assert not copied.head.training
    assert {name: tensor.shape for name, tensor in copied.state_dict().items()} == before
    torch.testing.assert_close(copied(images), attached, rtol=1e-5, atol=1e-5)
    assert isinstance(student.head, Reused)  # the one that trains goes on
    criterion.detach_from(copied)  # nothing is left to do
    torch.testing.assert_close(copied(images), attached, rtol=1e-5, atol=1e-5)


def test_answers_are_projected_maps_averaged(student, site):
    criterion = SimKD().criterion(site)
    criterion.attach(student)
    layout = layout_of(student, InputSpec(shape=(3, 16, 16)))
    with tapped(student, layout, [site.pairs[0][0].name, "penultimate"]) as seen:
        answer = student(torch.randn(8, 3, 16, 16))
    maps, reused = seen[site.pairs[0][0].name], criterion.reused[0]
    projected = torch.einsum("tc,nchw->nthw", reused.weight, maps) + reused.bias[:, None, None]
    weight, bias = site.classifier
    torch.testing.assert_close(projected.mean((2, 3)) @ weight.T + bias, answer, rtol=1e-4, atol=1e-4)
    assert seen["penultimate"].shape == (8, 24)  # other losses still find what they did


def test_no_gradient_reaches_the_teachers_classifier(student, site):
    criterion = SimKD().criterion(site)
    criterion.attach(student)
    student.requires_grad_(True)
    student(torch.randn(8, 3, 16, 16)).square().sum().backward()
    assert {name for name, _ in student.head.named_parameters()} == {"weight", "bias"}
    assert student.head.weight.grad.abs().max() > 0
    assert student.head.teacher_weight.grad is None
    assert not student.head.teacher_weight.requires_grad
    assert not site.classifier[0].requires_grad
    assert student.head.teacher_weight is not site.classifier[0]  # nothing that trains shares memory with the teacher


def test_values_restored_in_place_are_seen(student, site):
    criterion = SimKD().criterion(site)
    criterion.attach(student)
    with torch.no_grad():
        for parameter in student.head.parameters():
            parameter.zero_()
    hint = torch.randn(6, 40, 4, 4)
    value = criterion([torch.randn(6, 24, 4, 4)], [hint], BATCH)
    assert float(value.detach()) == pytest.approx(float(hint.square().mean()))


def test_what_can_not_be_reused_is_refused(site):
    (own, other), (weight, bias) = site.pairs[0], site.classifier
    assert "the teacher has no linear layer" in SimKD().problem(replace(site, classifier=None))
    assert "the student has no linear layer" in SimKD().problem(replace(site, student_classifier=""))
    assert "10 classes, and the task has 7" in SimKD().problem(replace(site, classes=7))
    assert "the student's last linear layer takes 96 numbers" in SimKD().problem(replace(site, student_width=96))
    narrow = replace(site, classifier=(weight[:, :39], bias))
    assert "the teacher's last linear layer takes 39 numbers, and `t` has 40" in SimKD().problem(narrow)
    assert "there are 2 pairs" in SimKD().problem(replace(site, pairs=site.pairs * 2))
    flat = replace(site, pairs=((own, other.but(shape=(40,))),))
    assert SimKD().problem(flat) == "it compares maps, and this point gives a vector"


def test_is_told_from_a_layer_that_can_not_be_replaced(site):
    module = nn.ModuleDict({"head": nn.Linear(24, 10, bias=False)})
    with pytest.raises(ConfigurationError, match="no linear layer with a bias"):
        SimKD().criterion(site).attach(module)
    with pytest.raises(RuntimeError, match="attach it first"):
        SimKD().criterion(site)([torch.randn(6, 24, 4, 4)], [torch.randn(6, 40, 4, 4)], BATCH)


@pytest.mark.slow
def test_a_student_learns_from_it(student, site):
    criterion = SimKD().criterion(site)
    criterion.attach(student.train())
    images, hint = torch.randn(32, 3, 16, 16), torch.randn(32, 40, 4, 4).relu()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    name, values = site.pairs[0][0].name, []
    with tapped(student, layout_of(student, InputSpec(shape=(3, 16, 16))), [name]) as seen:
        for _ in range(40):
            student(images)
            value = criterion([seen[name]], [hint], BATCH)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
    assert np.mean(values[-5:]) < 0.7 * values[0]
