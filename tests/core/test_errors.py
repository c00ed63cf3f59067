from __future__ import annotations

import pytest

from edgekd import errors
from edgekd.errors import ConfigurationError, EdgeKDError, Place, Problem, UnknownName, nearest_name, printable


def test_every_error_has_the_exit_code_the_tree_promises() -> None:
    codes = {
        name: getattr(errors, name).exit_code
        for name in errors.__all__
        if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), EdgeKDError)
    }
    assert codes == {
        "EdgeKDError": 1,
        "UsageError": 2,
        "ConfigurationError": 3,
        "UnknownName": 3,
        "Diverged": 3,
        "MissingError": 4,
        "DeviceUnreachable": 4,
        "ConnectionLost": 4,
        "DeviceBusy": 4,
        "NothingFits": 5,
        "Unstable": 6,
        "ParityFailed": 7,
        "Interrupted": 130,
    }


def test_a_problem_shows_its_line_with_a_mark_under_the_field() -> None:
    problem = Problem("no such field", "did you mean `p95`?", Place("t.yaml", 4, 5, "budgets.p9", "    p9: 3 ms", 2))
    assert str(problem).split("\n") == [
        "t.yaml:4:5  budgets.p9: no such field",
        "    4 |     p9: 3 ms",
        "      |     ^^",
        "  did you mean `p95`?",
    ]


def test_a_place_without_a_line_shows_no_column() -> None:
    assert str(Place("t.yaml", 0, 7, "budgets")) == "t.yaml  budgets"


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    text = str(UnknownName("backend", "litert/xnpack", ["litert/xnnpack", "openvino/cpu"]))
    assert "did you mean `litert/xnnpack`?" in text
    assert "(known: litert/xnnpack, openvino/cpu)" in text


def test_a_configuration_error_needs_a_problem() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ConfigurationError([])


def test_nothing_near_gives_no_name() -> None:
    assert nearest_name("zzzzz", ["alpha", "beta"]) is None


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
