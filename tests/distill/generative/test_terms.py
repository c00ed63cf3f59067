from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.generative import terms

RNG = np.random.default_rng(0)
TEACHER, STUDENT = RNG.normal(0, 2, (7, 5)), RNG.normal(0, 2, (7, 5))
FEATURES = RNG.normal(0, 1, (7, 9))


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def kl(teacher, student):
    return (softmax(teacher) * (np.log(softmax(teacher)) - np.log(softmax(student)))).sum(1)


def test_one_hot_is_the_surprise_at_the_first_choice():
    expected = -np.log(softmax(TEACHER).max(1)).mean()
    assert terms.one_hot(torch.tensor(TEACHER)).item() == pytest.approx(expected)


def test_activation_is_minus_the_mean_size():
    assert terms.activation(torch.tensor(FEATURES)).item() == pytest.approx(-np.abs(FEATURES).mean())


def test_balance_is_minus_the_entropy_of_the_mean_answer():
    share = softmax(TEACHER).mean(0)
    assert terms.balance(torch.tensor(TEACHER)).item() == pytest.approx((share * np.log(share)).sum())
    even = torch.eye(5, dtype=torch.float64) * 1000
    assert terms.balance(even).item() == pytest.approx(-np.log(5))  # the least there is: each class once, for sure
    assert terms.balance(even[:1]).item() == 0


def test_distance_is_the_mean_absolute_difference():
    found = terms.distance(torch.tensor(STUDENT), torch.tensor(TEACHER)).item()
    assert found == pytest.approx(np.abs(STUDENT - TEACHER).mean())


def test_disagreement_counts_where_both_name_one_class():
    agreed = STUDENT.argmax(1) == TEACHER.argmax(1)
    assert 0 < agreed.sum() < len(agreed)
    expected = (kl(TEACHER, STUDENT) * agreed).mean()
    assert terms.disagreement(torch.tensor(STUDENT), torch.tensor(TEACHER)).item() == pytest.approx(expected)
    assert terms.disagreement(torch.tensor(TEACHER), torch.tensor(TEACHER)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["one_hot", "balance", "activation"])
def test_gradients_of_the_teachers_answers(name):
    inputs = torch.tensor(TEACHER, requires_grad=True)
    assert torch.autograd.gradcheck(getattr(terms, name), (inputs,))


@pytest.mark.parametrize("name", ["distance", "disagreement"])
def test_gradients_of_both_answers(name):
    inputs = torch.tensor(STUDENT, requires_grad=True), torch.tensor(TEACHER, requires_grad=True)
    assert torch.autograd.gradcheck(getattr(terms, name), inputs)
