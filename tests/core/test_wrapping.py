"""Lines in the width of a terminal."""

from __future__ import annotations

import os

import pytest

from edgekd.wrapping import columns, wrapped

CERTIFIED = (
    "certified  litert int8 . 98.3% test . p95 7.42 us [7.11 us, 7.68 us] . p50 7.18 us [7.07 us, 7.45 us] . 36.5 KiB"
)


def test_a_summary_breaks_between_its_figures() -> None:
    assert wrapped(CERTIFIED, 80) == [
        "certified  litert int8 . 98.3% test . p95 7.42 us [7.11 us, 7.68 us] .",
        "           p50 7.18 us [7.07 us, 7.45 us] . 36.5 KiB",
    ]


def test_a_figure_keeps_its_unit() -> None:
    lines = wrapped("note: " + "x" * 60 + " takes 1234 us, and then more", 76)
    assert lines == ["note: " + "x" * 60 + " takes", "  1234 us, and then more"]


@pytest.mark.parametrize("text", ["", "short", "  " + "x" * 78, "a table   with   columns"])
def test_what_fits_is_left_as_it_is(text: str) -> None:
    assert wrapped(text, 80) == [text]


def test_an_indent_is_kept_and_a_long_word_stays_whole() -> None:
    assert wrapped("    " + "a" * 70 + " " + "b" * 90, 80) == ["    " + "a" * 70, "    " + "b" * 90]


@pytest.mark.parametrize(("wide", "shown"), [(132, 132), (80, 80), (40, 80)])
def test_a_table_is_as_wide_as_the_terminal_and_80_at_least(
    wide: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((wide, 24)))
    assert columns() == shown
