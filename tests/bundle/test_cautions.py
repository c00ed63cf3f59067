"""What is said of a model that holds every limit and is still not worth shipping."""

from __future__ import annotations

import pytest

from edgekd.bundle.card import card_text
from edgekd.bundle.cautions import cautions_of
from edgekd.records import digest_json
from edgekd.store.certificate import Certificate
from edgekd.store.records import FinalistRecord, TeacherScore, TeachersRecord


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
    assert list(cautions_of(scored, finalist(certificate, validation), rated(teacher))) == said


def test_without_a_teacher_nothing_is_said_of_one(certificate: Certificate) -> None:
    assert cautions_of(certificate, finalist(certificate, 0.9), None) == ()


def test_the_card_says_so_first(certificate: Certificate) -> None:
    text = card_text(certificate.but(cautions=("hardly better than chance: 8.3%",)))
    assert text.index("**Caution**: hardly better than chance: 8.3%.") < text.index("| what | value |")
    assert "Caution" not in card_text(certificate)
