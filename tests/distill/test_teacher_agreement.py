from __future__ import annotations

import numpy as np
import pytest

from edgekd.distill.teacher_agreement import agreement_of, calibration_error


def logits(*choices, sure=4.0, classes=3):
    return np.eye(classes)[list(choices)] * sure


def test_agreement_is_reported_class_by_class():
    labels = np.array([0, 0, 1, 1, 1])
    found = agreement_of(logits(0, 1, 1, 1, 2), logits(0, 0, 1, 1, 2), labels, names=("cat", "dog", "bird"))
    assert (found.samples, found.student, found.teacher, found.agreement) == (5, 0.6, 0.8, 0.8)
    assert [each.label for each in found.classes] == ["cat", "dog"]  # no bird to be asked about
    cat, dog = found.classes
    assert (cat.samples, cat.student, cat.teacher, cat.agreement) == (2, 0.5, 1.0, 0.5)
    assert (dog.student, dog.teacher, dog.agreement) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 1.0)
    assert [each.label for each in agreement_of(logits(0), logits(0), np.array([0])).classes] == ["0"]


def test_calibration_error_is_guos_formula():
    rng = np.random.default_rng(0)
    given, labels = rng.normal(0, 2, (400, 5)), rng.integers(0, 5, 400)
    probabilities = np.exp(given) / np.exp(given).sum(1, keepdims=True)
    total = 0.0
    for b in range(15):
        here = [n for n in range(400) if b / 15 <= probabilities[n].max() < (b + 1) / 15]
        if here:
            accuracy = np.mean([given[n].argmax() == labels[n] for n in here])
            total += len(here) / 400 * abs(accuracy - np.mean([probabilities[n].max() for n in here]))
    assert calibration_error(given, labels) == pytest.approx(total)


def test_a_model_that_is_sure_and_right_has_no_calibration_error():
    assert calibration_error(logits(0, 1, 2, sure=100.0), np.array([0, 1, 2])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(logits(0, 1, 2, sure=100.0), np.array([1, 2, 0])) == pytest.approx(1.0, abs=1e-6)
