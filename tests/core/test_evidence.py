from __future__ import annotations

import itertools

import pytest

from edgekd.evidence import EvidenceKind, Figure, weakest


def test_kinds_are_ordered_strongest_first() -> None:
    strengths = [kind.strength for kind in EvidenceKind]
    assert strengths == sorted(strengths, reverse=True)
    assert EvidenceKind.MEASURED.strength > EvidenceKind.EMULATED.strength


@pytest.mark.parametrize(("a", "b"), itertools.product(EvidenceKind, repeat=2))
def test_combining_never_upgrades(a: EvidenceKind, b: EvidenceKind) -> None:
    assert weakest([a, b]).strength == min(a.strength, b.strength)


def test_nothing_combines_to_nothing() -> None:
    with pytest.raises(ValueError, match=r"."):
        weakest([])


def test_an_exact_figure_is_its_own_interval() -> None:
    figure = Figure(metric="size.file", value=10, unit="B", kind=EvidenceKind.MEASURED, subject="f", method="counted")
    assert (figure.lower, figure.upper) == (10, 10)
    assert (figure.but(low=9, high=12).lower, figure.but(low=9, high=12).upper) == (9, 12)
