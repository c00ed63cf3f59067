"""Lines in the width of a terminal."""

from __future__ import annotations

import os

import pytest

from edgekd.wrapping import brief_names, columns, wrapped

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


def test_a_command_to_copy_stays_whole() -> None:
    line = (
        "next:      edgekd verify runs/a-folder-with-a-long-name/bundle --device a-board-with-a-long-name --digest 0123"
    )
    assert wrapped(line, 80) == [line]


def test_an_indent_is_kept_and_a_long_word_stays_whole() -> None:
    assert wrapped("    " + "a" * 70 + " " + "b" * 90, 80) == ["    " + "a" * 70, "    " + "b" * 90]


@pytest.mark.parametrize(("wide", "shown"), [(132, 132), (80, 80), (40, 80)])
def test_a_table_is_as_wide_as_the_terminal_and_80_at_least(
    wide: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((wide, 24)))
    assert columns() == shown


@pytest.mark.parametrize(
    ("names", "width", "shown"),
    [
        (["a.tflite", "b.onnx"], 8, ["a.tflite", "b.onnx"]),
        (["ic_resnet_float32.tflite", "ic_resnet_int8.tflite"], 17, ["ic_resnet_float32", "ic_resnet_int8"]),
        (["ic_resnet_float32.tflite", "ic_resnet_int8.tflite"], 12, ["ic_..float32", "ic_res..int8"]),
        (["mobilenet_v2_a_tail.onnx", "mobilenet_v2_b_tail.onnx"], 12, ["mobi..a_tail", "mobi..b_tail"]),
        (["abcdefghijklmn1qrstuv.onnx", "abcdefghijklmn2qrstuv.onnx"], 12, ["abc..1qrstuv", "abc..2qrstuv"]),
    ],
)
def test_names_give_way_so_that_they_are_still_told_apart(names: list[str], width: int, shown: list[str]) -> None:
    assert brief_names(names, width) == dict(zip(names, shown, strict=True))
