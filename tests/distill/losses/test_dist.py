from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses.dist import DIST
from edgekd.testing.contracts.loss import LossContract


class TestDIST(LossContract):
    @pytest.fixture(params=[1.0, 4.0])
    def loss(self, request):
        return DIST(temperature=request.param)


@pytest.mark.parametrize(("beta", "gamma"), [(2, 2), (1, 0), (0, 3)])
def test_is_the_papers_formula(beta, gamma):
    rng, temperature = np.random.default_rng(0), 2.5
    student, teacher = rng.normal(size=(7, 5)), 3 * rng.normal(size=(7, 5))
    s, t = (np.exp(z / temperature) / np.exp(z / temperature).sum(1, keepdims=True) for z in (student, teacher))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    expected = temperature**2 * (beta * (1 - rows) + gamma * (1 - columns))
    loss = DIST(temperature=temperature, beta=beta, gamma=gamma)
    found = loss(torch.tensor(student), torch.tensor(teacher), torch.zeros(7, dtype=torch.int64))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_near_zero_where_the_student_is_the_teacher():
    logits = torch.randn((6, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert DIST()(logits, logits, torch.zeros(6, dtype=torch.int64)).item() == pytest.approx(0, abs=1e-4)


def test_a_class_that_nobody_tells_apart_leaves_finite_numbers():
    student = torch.zeros((4, 3), requires_grad=True)
    value = DIST()(student, torch.zeros((4, 3)), torch.zeros(4, dtype=torch.int64))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
