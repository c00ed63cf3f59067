from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from edgekd.distill.losses import rkd
from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.losses.rkd import RKD
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract

OF_VECTORS = Site(pairs=((Point(name="a", shape=(4,)), Point(name="b", shape=(7,))),), samples=12, classes=5)


def huber(one, other):
    apart = abs(one - other)
    return apart**2 / 2 if apart <= 1 else apart - 0.5


def distance_term(student, teacher):
    """Of embeddings (N, C), pair by pair."""
    count = len(student)
    pairs = [(i, j) for i, j in product(range(count), repeat=2) if i != j]
    mean_s, mean_t = (np.mean([np.linalg.norm(x[i] - x[j]) for i, j in pairs]) for x in (student, teacher))
    total = sum(
        huber(np.linalg.norm(student[i] - student[j]) / mean_s, np.linalg.norm(teacher[i] - teacher[j]) / mean_t)
        for i, j in pairs
    )
    return total / count**2


def angle_term(student, teacher):
    """Of embeddings (N, C), triplet by triplet."""
    count = len(student)

    def cosine(x, i, j, k):
        one, other = x[i] - x[j], x[k] - x[j]
        return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))

    triplets = [(i, j, k) for i, j, k in product(range(count), repeat=3) if len({i, j, k}) == 3]
    return sum(huber(cosine(student, *at), cosine(teacher, *at)) for at in triplets) / count**3


class TestRKD(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return RKD()

    @pytest.fixture(params=["maps", "vectors"])
    def site(self, request):
        if request.param == "vectors":
            return OF_VECTORS
        pairs = (((3, 4, 4), (4, 8, 8)), ((4, 2, 2), (5, 4, 4)))
        points = tuple((Point(name="s", shape=own), Point(name="t", shape=other)) for own, other in pairs)
        return Site(pairs=points, samples=12, classes=5)

    @pytest.mark.parametrize(("distance", "angle"), [(25, 50), (1, 0), (0, 2)])
    def test_is_the_papers_formula(self, site, inputs, distance, angle):
        student, teacher, batch = inputs
        expected = 0.0
        for own, other in zip(student, teacher, strict=True):
            own, other = (x.detach().numpy().reshape(*x.shape[:2], -1).mean(2) for x in (own, other))
            expected += distance * distance_term(own, other) + angle * angle_term(own, other)
        found = RKD(distance=distance, angle=angle).criterion(site)(student, teacher, batch)
        assert found.item() == pytest.approx(expected)

    def test_zero_where_the_student_is_the_teacher(self, criterion, inputs):
        _, teacher, batch = inputs
        assert float(criterion(teacher, teacher, batch)) == 0


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((9, width), generator=generator, dtype=torch.float64) for width in (4, 7)]


def criterion_of(**options):
    return RKD(**options).criterion(OF_VECTORS)


def batch_of(count):
    return Batch(torch.arange(count), torch.zeros(count, dtype=torch.int64))


def test_turning_shifting_and_scaling_changes_nothing(embeddings):
    own, other = embeddings
    turn = torch.linalg.qr(torch.randn((4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    moved = 7 * own @ turn + torch.tensor([5.0, -3, 0, 100])
    found, expected = (criterion_of()([x], [other], batch_of(9)) for x in (moved, own))
    torch.testing.assert_close(found, expected)
    assert float(criterion_of()([moved], [own], batch_of(9))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_of_a_sample_leave_finite_gradients(embeddings, dtype):
    own, other = (x.to(dtype)[[0, 1, 1, 2, 2, 2]] for x in embeddings)
    own.requires_grad_()
    value = criterion_of()([own], [other], batch_of(6))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(own.grad).all()
    assert own.grad.abs().max() < 1e3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_student_that_answers_all_alike_leaves_finite_numbers(count):
    own = torch.ones((count, 4), requires_grad=True)
    value = criterion_of()([own], [torch.randn((count, 7))], batch_of(count))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(own.grad).all()


def test_float32_is_near_float64_far_from_the_origin(embeddings):
    own, other = embeddings
    exact = criterion_of()([own], [other], batch_of(9))
    found = criterion_of()([(own + 30).float()], [other.float()], batch_of(9))
    assert float(found) == pytest.approx(float(exact), rel=1e-4)


def test_a_large_batch_has_its_triplets_cut(embeddings, monkeypatch):
    own, other = embeddings
    whole = criterion_of(angle=0)([own], [other], batch_of(9))
    monkeypatch.setattr(rkd, "_TOGETHER", 4)  # nine samples are three parts of three
    found = criterion_of(distance=0, angle=1)([own], [other], batch_of(9))
    parts = [criterion_of(distance=0, angle=1)([own[at]], [other[at]], batch_of(3)) for at in torch.arange(9).chunk(3)]
    torch.testing.assert_close(found, sum(parts) / 3)
    torch.testing.assert_close(criterion_of(angle=0)([own], [other], batch_of(9)), whole)
