"""Plugins: names to implementations through entry points, the same way for edgekd's own parts and others'.

A group's names are listed without loading anything; ``load`` imports one. Two packages that claim one name in one group
are an error that names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edgekd.errors import ConfigurationError, MissingError, Place, UnknownName

__all__ = ["GROUPS", "load", "names"]

GROUPS: Mapping[str, str] = {
    "edgekd.tasks": "task",
    "edgekd.teachers": "teacher",
    "edgekd.families": "family",
    "edgekd.losses": "loss",
    "edgekd.augmentations": "augmentation",
    "edgekd.stages": "stage",
    "edgekd.exporters": "export format",
    "edgekd.backends": "backend",
    "edgekd.devices": "kind of device",
    "edgekd.samplers": "sampler",
    "edgekd.accuracy": "accuracy estimate",
}
"""Entry-point groups, each with the user's word for its members."""


@cache
def _group(group: str) -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ConfigurationError.one(
                f"two packages give a {GROUPS[group]} `{point.name}`: {other.value} and {point.value}",
                "uninstall one of them, or ask its author to rename it",
            )
        found[point.name] = point
    return found


def names(group: str) -> tuple[str, ...]:
    """Names known in a group, sorted, none of them loaded."""
    return tuple(sorted(_group(group)))


def load(group: str, name: str, place: Place = Place()) -> Any:
    """Import the implementation of a name.

    Raises UnknownName with the nearest name, or MissingError when the package behind it can't be imported.
    """
    points = _group(group)
    if name not in points:
        raise UnknownName(GROUPS[group], name, points, place)
    try:
        return points[name].load()
    except Exception as error:  # a stranger's package may raise anything while it is imported
        raise MissingError(
            f"the {GROUPS[group]} `{name}` ({points[name].value}) can't be imported: {type(error).__name__}: {error}",
            "install what it needs, or use another: " + ", ".join(points),
        ) from error
