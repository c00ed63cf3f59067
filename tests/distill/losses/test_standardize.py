from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.losses.ce import CrossEntropy
from edgekd.distill.losses.dist import DIST
from edgekd.distill.losses.dkd import DKD
from edgekd.distill.losses.kd import KD
from edgekd.distill.losses.mlkd import MLKD
from edgekd.distill.losses.standardize import standardized
from edgekd.testing.contracts.loss import LossContract

EVERY = [KD, DKD, DIST, MLKD]


class TestStandardized(LossContract):
    @pytest.fixture(params=EVERY, ids=lambda kind: kind.__name__)
    def loss(self, request):
        return request.param(standardize=True)


def drawn():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((7, 5), generator=generator, dtype=torch.float64) for _ in range(2)]


LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def test_is_the_papers_z_score():
    logits, _ = drawn()
    rows = [(row - np.mean(row)) / np.std(row) for row in logits.numpy()]
    np.testing.assert_allclose(standardized(logits).numpy(), rows, rtol=1e-6)


@pytest.mark.parametrize("kind", EVERY)
def test_neither_shift_nor_scale_of_a_samples_logits_matters(kind):
    student, teacher = drawn()
    loss = kind.model_validate({"standardize": True})
    expected = loss(student, teacher, LABELS)
    scale, shift = torch.linspace(0.5, 9, 7)[:, None].double(), torch.linspace(-20, 20, 7)[:, None].double()
    tolerance = {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(loss(scale * student + shift, teacher, LABELS), expected, **tolerance)
    torch.testing.assert_close(loss(student, scale * teacher + shift, LABELS), expected, **tolerance)
    torch.testing.assert_close(
        loss(scale * teacher + shift, teacher, LABELS), loss(teacher, teacher, LABELS), **tolerance
    )


@pytest.mark.parametrize("kind", EVERY)
def test_without_it_scale_matters(kind):
    student, teacher = drawn()
    assert float(kind()(3 * student, teacher, LABELS)) != pytest.approx(
        float(kind()(student, teacher, LABELS)), rel=1e-2
    )


def test_logits_all_alike_leave_finite_numbers():
    student, (_, teacher) = torch.zeros((7, 5), requires_grad=True), drawn()
    value = KD(standardize=True)(student, teacher.float(), LABELS)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_refused_where_nothing_looks_at_the_teacher():
    with pytest.raises(ValidationError, match="no teacher whose logits"):
        CrossEntropy(standardize=True)
