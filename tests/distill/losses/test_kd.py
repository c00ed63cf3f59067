from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from edgekd.distill.losses.kd import KD
from edgekd.testing.contracts.loss import LossContract


class TestKD(LossContract):
    @pytest.fixture(params=[1.0, 4.0])
    def loss(self, request):
        return KD(temperature=request.param)


def softmax(logits, temperature):
    powers = np.exp(logits / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
def test_is_the_papers_formula(temperature):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(7, 4)), 5 * rng.normal(size=(7, 4))
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    found = KD(temperature=temperature)(torch.tensor(student), torch.tensor(teacher), torch.zeros(7, dtype=torch.int64))
    assert float(found) == pytest.approx(expected)


def test_zero_and_flat_where_the_student_is_the_teacher():
    logits = torch.randn((4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    value = KD()(logits, logits.detach(), torch.zeros(4, dtype=torch.int64))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max() < 1e-12


def test_a_certain_teacher_at_temperature_one_is_cross_entropy():
    student = torch.randn((5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 2, 2])
    certain = 1e3 * torch.eye(4, dtype=torch.float64)[labels]
    torch.testing.assert_close(KD(temperature=1)(student, certain, labels), cross_entropy(student, labels))


def test_gradient_at_high_temperature_matches_logits():
    # section 2.1 of the paper: for zero-mean logits the gradient tends to (z - v) / N, here a batch mean as well
    generator = torch.Generator().manual_seed(0)
    z, v = (torch.randn((3, 6), generator=generator, dtype=torch.float64) for _ in range(2))
    z, v = z - z.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    z.requires_grad_(True)
    KD(temperature=1e4)(z, v, torch.zeros(3, dtype=torch.int64)).backward()
    torch.testing.assert_close(z.grad, (z.detach() - v) / 6 / 3, rtol=1e-3, atol=1e-6)
