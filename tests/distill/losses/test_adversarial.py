from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.adversarial import Adversarial
from edgekd.distill.losses.connect import Connector, same_resolution
from edgekd.distill.losses.criterion import Batch
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract


def plain(criterion, student, teacher):
    """The discriminators' cross-entropy, with no gradient turned around."""
    terms = []
    for judge, connector, own, hint in zip(
        criterion.discriminators, criterion.connectors, student, teacher, strict=True
    ):
        own, hint = same_resolution(own, hint)
        guesses = torch.cat([judge(hint), judge(connector(own))])
        truth = torch.cat([torch.ones(len(hint), 1), torch.zeros(len(own), 1)]).to(guesses)
        terms.append(2 * torch.nn.functional.binary_cross_entropy_with_logits(guesses, truth))
    return sum(terms) / len(terms)


class TestAdversarial(FeatureLossContract):
    @pytest.fixture(params=[1.0, 0.3])
    def loss(self, request):
        return Adversarial(strength=request.param, width=4)

    @pytest.fixture(params=["logits", "vectors", "maps"])
    def site(self, request):
        shapes = {
            "logits": (((5,), (5,)),),
            "vectors": (((3,), (6,)),),
            "maps": (((2, 2, 2), (3, 4, 4)), ((3, 2, 2), (3, 2, 2))),
        }[request.param]
        pairs = tuple((Point(name="s", shape=own), Point(name="t", shape=other)) for own, other in shapes)
        return Site(pairs=pairs, samples=12, classes=5)

    def test_gradient_agrees_with_finite_differences(self, loss, criterion, inputs):
        """It must not: the student's is turned around. It is minus the strength times that of the plain value."""
        student, teacher, batch = inputs
        assert torch.autograd.gradcheck(lambda *own: plain(criterion, own, teacher), student)
        expected = torch.autograd.grad(plain(criterion, student, teacher), student)
        found = torch.autograd.grad(criterion(student, teacher, batch), student)
        for one, other in zip(found, expected, strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(one, -loss.strength * other)

    def test_the_discriminators_gradient_is_plain_and_the_connectors_is_turned_around(self, loss, criterion, inputs):
        student, teacher, batch = inputs
        for parts, factor in ((criterion.discriminators, 1.0), (criterion.connectors, -loss.strength)):
            if parameters := list(parts.parameters()):
                expected = torch.autograd.grad(plain(criterion, student, teacher), parameters)
                found = torch.autograd.grad(criterion(student, teacher, batch), parameters)
                for one, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(one, factor * other)

    def test_is_the_papers_formula(self, criterion, inputs):
        student, teacher, batch = inputs
        terms = []
        for judge, connector, own, hint in zip(
            criterion.discriminators, criterion.connectors, student, teacher, strict=True
        ):
            own, hint = same_resolution(own, hint)
            real, fake = (
                1 / (1 + np.exp(-judge(seen).detach().numpy()[:, 0])) for seen in (hint, connector(own).detach())
            )
            terms.append(-np.mean([np.log(d) for d in real]) - np.mean([np.log(1 - d) for d in fake]))
        assert float(criterion(student, teacher, batch).detach()) == pytest.approx(np.mean(terms))


def logits(classes: int = 4) -> Site:
    pair = (Point(name="logits", shape=(classes,)), Point(name="logits", shape=(classes,)))
    return Site(pairs=(pair,), samples=64, classes=classes)


def test_vectors_are_seen_by_three_layers():
    (judge,) = Adversarial(width=8).criterion(logits()).discriminators
    own = torch.randn(3, 4)
    value = own.numpy()
    for at in (0, 2, 4):
        value = value @ judge[at].weight.detach().numpy().T + judge[at].bias.detach().numpy()
        value = np.where(value > 0, value, 0.2 * value) if at < 4 else value
    assert judge(own).detach().numpy() == pytest.approx(value, abs=1e-5)


def test_a_connector_lies_only_between_unlike_channels():
    pairs = tuple((Point(name="s", shape=own), Point(name="t", shape=(4, 2, 2))) for own in ((3, 2, 2), (4, 2, 2)))
    criterion = Adversarial().criterion(Site(pairs=pairs, samples=4, classes=2))
    assert [type(part) for part in criterion.connectors] == [Connector, torch.nn.Identity]


def test_a_discriminator_that_only_guesses_has_a_known_loss():
    criterion = Adversarial().criterion(logits())
    for parameter in criterion.discriminators[0][-1].parameters():
        torch.nn.init.zeros_(parameter)
    same = torch.randn(8, 4)
    value = criterion([same], [same], Batch(torch.arange(8), torch.arange(8)))
    assert float(value.detach()) == pytest.approx(2 * np.log(2))


def trained(strength: float, steps: int) -> tuple[list[float], float, float]:
    """The loss at every step; and how far apart the mean answers are before and after."""
    torch.manual_seed(0)
    images, hints = torch.randn(64, 6), torch.randn(64, 4) + 2
    student, criterion = torch.nn.Linear(6, 4), Adversarial(strength=strength).criterion(logits())
    optimizer = torch.optim.SGD([*student.parameters(), *criterion.parameters()], lr=0.1, momentum=0.5)
    batch, values = Batch(torch.arange(64), torch.arange(64)), []

    def apart() -> float:
        return float((student(images).mean(0) - hints.mean(0)).norm().detach())

    before = apart()
    for _ in range(steps):
        value = criterion([student(images)], [hints], batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    return values, before, apart()


def test_alone_the_discriminator_learns():
    values, before, after = trained(strength=0.0, steps=40)
    assert values[-1] < 0.5 * values[0]
    assert after == before


def test_the_student_learns_to_be_mistaken_for_the_teacher():
    values, before, after = trained(strength=1.0, steps=100)
    assert after < 0.3 * before
    assert values[-1] > trained(strength=0.0, steps=100)[0][-1] + 0.5
