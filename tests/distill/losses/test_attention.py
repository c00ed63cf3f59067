from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.attention import Attention
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract


class TestAttention(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return Attention(weight=1000.0)

    def test_with_its_weight_it_is_the_papers_formula(self, loss, criterion, inputs):
        student, teacher, _ = inputs
        expected = 0.0
        for own, other in zip(student, teacher, strict=True):
            own, other = own.detach().numpy(), other.numpy()
            samples, _, height, width = own.shape
            beta = 1e3 / (samples * height * width)
            for one, two in zip(own, other, strict=True):
                q_s = sum(channel**2 for channel in one).ravel()  # a sum is as good as a mean: lengths are made 1
                q_t = sum(channel**2 for channel in two)
                q_t = q_t.reshape(height, 2, width, 2).mean((1, 3)).ravel()  # the teacher's map is twice as large
                difference = q_s / np.sqrt(q_s @ q_s) - q_t / np.sqrt(q_t @ q_t)
                expected += beta / 2 * np.linalg.norm(difference) ** 2
        assert loss.weight * criterion(*inputs).item() == pytest.approx(expected)

    def test_zero_where_the_student_is_the_teacher(self, criterion, inputs):
        _, teacher, batch = inputs
        assert float(criterion(teacher, teacher, batch)) == 0

    def test_neither_the_size_of_a_samples_activations_nor_their_signs_matter(self, criterion, inputs):
        student, teacher, batch = inputs
        factors = torch.tensor([1.0, -2, 3, 0.1, 5, -7], dtype=torch.float64)[:, None, None, None]
        other = criterion([own * factors for own in student], [3 * hint for hint in teacher], batch)
        torch.testing.assert_close(other, criterion(*inputs))

    def test_channels_may_be_in_any_order(self, criterion, inputs):
        student, teacher, batch = inputs
        torch.testing.assert_close(criterion([own.flip(1) for own in student], teacher, batch), criterion(*inputs))

    def test_an_activation_of_zeros_leaves_finite_numbers(self, criterion, inputs):
        _, teacher, batch = inputs
        own = [torch.zeros_like(hint, requires_grad=True) for hint in teacher]
        value = criterion(own, teacher, batch)
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(zeros.grad).all() for zeros in own)

    def test_vectors_are_refused(self, loss):
        site = Site(pairs=((Point(name="a", shape=(3,)), Point(name="b", shape=(5,))),), samples=4, classes=2)
        assert loss.problem(site) == "it compares maps, and this point gives a vector"
