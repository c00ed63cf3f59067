from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from edgekd import plugins
from edgekd.errors import ConfigurationError, MissingError, Place, UnknownName


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    found: list[EntryPoint] = []
    plugins._group.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    yield found
    plugins._group.cache_clear()


def test_our_own_parts_come_in_by_entry_points() -> None:
    assert "digits" in plugins.names("edgekd.tasks")
    assert set(plugins.names("edgekd.stages")) >= {"distill", "quantize"}


def test_an_unknown_name_offers_the_nearest_at_its_place(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("digits", "json:loads", "edgekd.tasks"))
    with pytest.raises(UnknownName, match="did you mean `digits`") as caught:
        plugins.load("edgekd.tasks", "digit", Place("p.yaml", 2))
    assert caught.value.problems[0].place.line == 2


def test_a_part_that_cannot_be_imported_is_missing(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("gone", "no_such_package_at_all:Thing", "edgekd.tasks"))
    assert plugins.names("edgekd.tasks") == ("gone",)
    with pytest.raises(MissingError, match="no_such_package_at_all"):
        plugins.load("edgekd.tasks", "gone")


def test_two_packages_that_claim_one_name_are_both_named(points: list[EntryPoint]) -> None:
    points += [EntryPoint("a", "json:loads", "edgekd.tasks"), EntryPoint("a", "json:dumps", "edgekd.tasks")]
    with pytest.raises(ConfigurationError, match="json:loads and json:dumps"):
        plugins.names("edgekd.tasks")
