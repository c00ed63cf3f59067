from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.losses.similarity import Similarity
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract


def similarities(activations):
    """Of numpy (N, ...), sample by sample."""
    count = len(activations)
    gram = np.array([[(activations[i] * activations[j]).sum() for j in range(count)] for i in range(count)])
    return np.array([row / np.sqrt((row**2).sum()) for row in gram])


class TestSimilarity(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return Similarity()

    def test_is_a_batch_mean(self, criterion, inputs):
        """It is half as much for a batch repeated twice: the paper's rows have length 1 whatever their number."""
        student, teacher, batch = inputs
        twice = criterion([torch.cat([own] * 2) for own in student], [torch.cat([o] * 2) for o in teacher], batch)
        torch.testing.assert_close(twice, criterion(*inputs) / 2)

    def test_is_the_papers_formula(self, criterion, inputs):
        student, teacher, _ = inputs
        expected = 0.0
        for own, other in zip(student, teacher, strict=True):
            difference = similarities(own.detach().numpy()) - similarities(other.numpy())
            expected += np.linalg.norm(difference, "fro") ** 2 / len(own) ** 2
        assert criterion(*inputs).item() == pytest.approx(expected)

    def test_zero_where_the_student_is_the_teacher(self, criterion, inputs):
        _, teacher, batch = inputs
        assert float(criterion(teacher, teacher, batch)) == 0

    def test_a_turned_space_is_the_same(self, criterion, inputs):
        """Only inner products count, so a rotation of all positions and channels together changes nothing."""
        student, teacher, batch = inputs
        turned = []
        for own in student:
            flat = own.flatten(1)
            random = torch.randn((flat.shape[1],) * 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            turned.append(5 * (flat @ torch.linalg.qr(random).Q).view_as(own))
        torch.testing.assert_close(criterion(turned, teacher, batch), criterion(*inputs))

    def test_a_map_may_be_paired_with_a_vector(self, loss):
        pairs = ((Point(name="a", shape=(3, 2, 2)), Point(name="b", shape=(5,))),)
        site = Site(pairs=pairs, samples=4, classes=2)
        assert loss.problem(site) == ""
        batch = Batch(torch.arange(4), torch.zeros(4, dtype=torch.int64))
        assert torch.isfinite(loss.criterion(site)([torch.zeros(4, 3, 2, 2)], [torch.randn(4, 5)], batch))
