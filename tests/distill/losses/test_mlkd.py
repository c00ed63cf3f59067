from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.losses.kd import KD
from edgekd.distill.losses.mlkd import MLKD
from edgekd.testing.contracts.loss import LossContract


class TestMLKD(LossContract):
    @pytest.fixture(params=[{}, {"temperatures": [1.0]}])
    def loss(self, request):
        return MLKD(**request.param)


def logits_of(count, classes):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, classes)), 3 * rng.normal(size=(count, classes))


def found_for(loss, student, teacher):
    labels = torch.zeros(len(student), dtype=torch.int64)
    return float(loss(torch.as_tensor(student), torch.as_tensor(teacher), labels))


@pytest.mark.parametrize("temperatures", [(2, 3, 4, 5, 6), (1.5,)])
def test_at_a_batch_of_64_and_100_classes_it_is_the_papers_formula(temperatures):
    count, classes = 64, 100
    student, teacher = logits_of(count, classes)
    expected = 0.0
    for heat in temperatures:
        s, t = (np.exp(z / heat) / np.exp(z / heat).sum(1, keepdims=True) for z in (student, teacher))
        instance = heat**2 * sum((q * np.log(q / p)).sum() for p, q in zip(s, t, strict=True)) / count
        samples = np.einsum("ac,bc->ab", s, s) - np.einsum("ac,bc->ab", t, t)
        columns = np.einsum("nc,nd->cd", s, s) - np.einsum("nc,nd->cd", t, t)
        expected += instance + (samples**2).sum() / count + (columns**2).sum() / classes
    assert found_for(MLKD(temperatures=temperatures), student, teacher) == pytest.approx(expected)


def test_it_weighs_the_same_at_any_batch_and_number_of_classes():
    """A teacher that is sure, and a student that knows nothing."""
    loss = MLKD(instance_weight=0, temperatures=(1,))
    found = [
        found_for(loss, np.zeros((count, classes)), 50 * np.eye(classes)[np.arange(count) % classes])
        for count, classes in ((40, 10), (320, 10), (200, 100))
    ]
    assert found == pytest.approx([found[0]] * 3, rel=0.15)


def test_zero_where_the_student_is_the_teacher():
    student, _ = logits_of(6, 5)
    assert found_for(MLKD(), student, student) == 0


def test_alone_the_first_level_is_a_sum_of_kd():
    student, teacher = logits_of(6, 5)
    loss = MLKD(batch_weight=0, class_weight=0)
    expected = sum(found_for(KD(temperature=heat), student, teacher) for heat in loss.temperatures)
    assert found_for(loss, student, teacher) == pytest.approx(expected)


def test_the_batchs_relations_hold_when_all_classes_change_places():
    """A permutation of the student's classes leaves p p^T as it was."""
    student, teacher = logits_of(6, 5)
    loss = MLKD(instance_weight=0, class_weight=0)
    assert found_for(loss, student[:, ::-1].copy(), teacher) == pytest.approx(found_for(loss, student, teacher))
    assert found_for(loss, teacher[:, ::-1].copy(), teacher) == pytest.approx(0, abs=1e-20)


def test_the_classes_relations_hold_when_all_samples_change_places():
    student, teacher = logits_of(6, 5)
    loss = MLKD(instance_weight=0, batch_weight=0)
    assert found_for(loss, student[::-1].copy(), teacher) == pytest.approx(found_for(loss, student, teacher))
    assert found_for(loss, teacher[::-1].copy(), teacher) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("temperatures", [[], [0.0], [4.0, -1.0]])
def test_at_least_one_temperature_and_all_above_zero(temperatures):
    with pytest.raises(ValidationError, match="temperatures"):
        MLKD(temperatures=temperatures)


def test_a_certain_teacher_leaves_finite_numbers():
    logits = torch.zeros((3, 4), requires_grad=True)
    value = MLKD()(logits, 1e4 * torch.eye(4)[:3], torch.tensor([0, 1, 2]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
