from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekd.report import svg

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@example([5e-324])
@given(st.lists(FINITE, min_size=1, max_size=5))
def test_a_scale_holds_its_values_and_round_ticks(values: list[float]) -> None:
    scale = svg.Scale.over(values, 10.0, 110.0)
    assert all(10.0 <= scale(value) <= 110.0 for value in values)
    ticks = scale.ticks()
    assert len(ticks) <= 7
    assert all(scale.low - 1e-9 * abs(scale.low) <= tick <= scale.high + 1e-9 * abs(scale.high) for tick in ticks)


def test_one_value_has_room() -> None:
    scale = svg.Scale.over([5.0], 0.0, 100.0)
    assert math.isclose(scale(5.0), 50.0)


def test_a_scale_may_run_downwards() -> None:
    scale = svg.Scale(0.0, 1.0, 100.0, 0.0)
    assert scale(0.25) == 75.0
    assert scale(7.0) == 0.0


def test_ticks_are_round() -> None:
    assert svg.Scale(0.0, 100.0, 0, 1).ticks() == [0, 20, 40, 60, 80, 100]
    assert svg.Scale(0.93, 0.99, 0, 1).ticks() == pytest.approx([0.94, 0.96, 0.98])


@settings(max_examples=30)
@given(st.text(st.sampled_from("<>&\"'ab é\u4e2d\u202e/;#"), max_size=20))
def test_any_text_is_well_formed(words: str) -> None:
    parts = [svg.text(0, 0, words), svg.circle(1, 1, 1, "trial", words), svg.line(0, 0, 1.25, 1, "grid")]
    tree = ElementTree.fromstring(svg.picture(10, 10, words, parts))
    assert (tree[0].text or "") == words
    assert tree.attrib["aria-label"] == words


def test_a_rectangle_is_never_inside_out() -> None:
    assert 'width="0"' in svg.rect(0, 0, -5.0, 3.0, "over")
