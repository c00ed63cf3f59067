from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses.dkd import DKD
from edgekd.distill.losses.kd import KD
from edgekd.testing.contracts.loss import LossContract


class TestDKD(LossContract):
    @pytest.fixture(params=[1.0, 4.0])
    def loss(self, request):
        return DKD(temperature=request.param)


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize(("alpha", "beta"), [(1, 8), (0.5, 0), (0, 2)])
def test_is_the_papers_formula(alpha, beta):
    rng, temperature = np.random.default_rng(0), 2.5
    student, teacher, labels = rng.normal(size=(7, 5)), 5 * rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    terms = []
    for s, t, y in zip(student / temperature, teacher / temperature, labels, strict=True):
        p, q = softmax(t), softmax(s)
        target = p[y] * np.log(p[y] / q[y]) + (1 - p[y]) * np.log((1 - p[y]) / (1 - q[y]))
        p, q = softmax(np.delete(t, y)), softmax(np.delete(s, y))
        terms.append(alpha * target + beta * (p * np.log(p / q)).sum())
    loss = DKD(temperature=temperature, alpha=alpha, beta=beta)
    found = loss(torch.tensor(student), torch.tensor(teacher), torch.tensor(labels))
    assert float(found) == pytest.approx(temperature**2 * np.mean(terms))


def test_weighed_by_the_teachers_doubt_it_is_kd():
    """Equation 5 of the paper: KD = TCKD + (1 - p_label) NCKD, here one sample so that the weight is one number."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((1, 6), generator=generator, dtype=torch.float64) for _ in range(2))
    label = torch.tensor([2])
    doubt = 1 - float(torch.softmax(teacher, 1)[0, 2])
    found = DKD(temperature=1, alpha=1, beta=doubt)(student, teacher, label)
    torch.testing.assert_close(found, KD(temperature=1)(student, teacher, label))


def test_of_two_classes_nothing_is_left_beside_the_label():
    logits = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.0]])
    label = torch.tensor([0])
    torch.testing.assert_close(DKD(alpha=1, beta=9)(*logits, label), KD()(*logits, label))


def test_a_certain_teacher_leaves_finite_numbers():
    logits = torch.zeros((3, 4), requires_grad=True)
    value = DKD()(logits, 1e4 * torch.eye(4)[:3], torch.tensor([0, 1, 2]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
