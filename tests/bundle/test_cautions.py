"""What is said of a model that holds every limit and is still not worth shipping."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.bundle.card import card_text
from edgekd.bundle.cautions import cautions_of
from edgekd.records import digest_json
from edgekd.store.certificate import Certificate
from edgekd.store.records import FinalistRecord, TeacherScore, TeachersRecord
from edgekd.tasks._protocol import MetricSpec

EVEN = np.repeat([0, 1, 2], 50)


def finalist(certificate: Certificate, value: float) -> FinalistRecord:
    accuracy = certificate.accuracy.but(value=value, split="validation")
    return FinalistRecord(
        rank=1, trial=0, candidate=certificate.candidate, student=None, artefact=None, curve=(), accuracy=accuracy
    )


def rated(score: float) -> TeachersRecord:
    return TeachersRecord(teachers=(TeacherScore(name="wide", identity=digest_json(0), score=score, samples=50),))


@pytest.mark.parametrize(
    ("test", "validation", "teacher", "own", "said"),
    [
        (0.90, 0.90, 0.95, 0.91, []),
        (0.90, 0.90, 0.95, None, []),
        (0.36, 0.36, 0.40, None, ["hardly better than chance: 36.0%, and guessing scores 33.3%"]),
        (0.60, 0.60, 0.77, None, ["17.0 points below its teacher: 60.0% of the validation samples, and wide 77.0%"]),
        (0.80, 0.80, 0.85, 0.84, ["4.0 points below the model as it came, which scores 84.0%"]),
    ],
)
def test_chance_the_teacher_and_ones_own_model(
    certificate: Certificate, test: float, validation: float, teacher: float, own: float | None, said: list[str]
) -> None:
    scored = certificate.but(accuracy=certificate.accuracy.but(value=test))
    if own is not None:
        scored = scored.but(own=certificate.accuracy.but(value=own))
    assert list(cautions_of(scored, finalist(certificate, validation), rated(teacher), EVEN)) == said


def test_without_a_teacher_nothing_is_said_of_one(certificate: Certificate) -> None:
    assert cautions_of(certificate, finalist(certificate, 0.9), None, EVEN) == ()


@pytest.mark.parametrize(("value", "near"), [(0.8, True), (0.84, True), (0.86, False)])
def test_chance_is_to_name_the_largest_class_always(certificate: Certificate, value: float, near: bool) -> None:
    scored = certificate.but(accuracy=certificate.accuracy.but(value=value))
    uneven = np.repeat([0, 1, 2], [80, 10, 10])
    said = cautions_of(scored, finalist(certificate, value), None, uneven)
    assert said == ((f"hardly better than chance: {value:.1%}, and guessing scores 80.0%",) if near else ())


def test_numbers_that_hardly_follow_the_samples_are_said(certificate: Certificate) -> None:
    spec = certificate.task.but(metric=MetricSpec(name="R2"))
    scored = certificate.but(task=spec, accuracy=certificate.accuracy.but(value=0.04))
    assert cautions_of(scored, finalist(certificate, 0.04), None, EVEN) == (
        "hardly better than telling each number's mean: R2 0.04",
    )


def test_the_card_says_so_first(certificate: Certificate) -> None:
    text = card_text(certificate.but(cautions=("hardly better than chance: 8.3%",)))
    assert text.index("**Caution**: hardly better than chance: 8.3%.") < text.index("| what | value |")
    assert "Caution" not in card_text(certificate)
