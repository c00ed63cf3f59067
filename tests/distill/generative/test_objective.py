from __future__ import annotations

import pytest
import torch

from edgekd.distill.generative import terms
from edgekd.distill.generative.objective import PRESETS, TermWeights

GENERATOR = torch.Generator().manual_seed(0)
TEACHER, STUDENT = (torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
FEATURES, STATISTICS = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64), torch.tensor(2.5)


def test_dafl_is_its_three_terms():
    expected = terms.one_hot(TEACHER) + 0.1 * terms.activation(FEATURES) + 5 * terms.balance(TEACHER)
    assert PRESETS["dafl"](TEACHER, None, FEATURES, None).item() == pytest.approx(expected.item())
    assert not PRESETS["dafl"].asks_student


def test_dfad_raises_what_the_student_lessens():
    found = PRESETS["dfad"](TEACHER, STUDENT, None, None)
    assert found.item() == pytest.approx(-terms.distance(STUDENT, TEACHER).item())
    assert PRESETS["dfad"].asks_student


def test_statistics_and_disagreement_are_added_with_their_weights():
    found = TermWeights(disagreement=2, bn=3)(TEACHER, STUDENT, None, STATISTICS)
    assert found.item() == pytest.approx(-2 * terms.disagreement(STUDENT, TEACHER).item() + 7.5)


def test_combined_takes_from_all():
    assert {name for name, weight in PRESETS["combined"] if weight} == {"one_hot", "balance", "disagreement", "bn"}
