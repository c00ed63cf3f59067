"""Archs, the axes they differ in, and the space that axes span."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import model_serializer, model_validator

from edgekd.records import Record

__all__ = ["Arch", "Axis", "Choice", "Space"]

Choice = int | float


class Arch(Record):
    """One point of a space: a frozen, hashable mapping from axis to choice, kept in alphabetical order of axes."""

    choices: tuple[tuple[str, Choice], ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        pairs = value["choices"] if isinstance(value, Mapping) and set(value) == {"choices"} else value.items()
        return {"choices": tuple(sorted(pairs))}

    @model_serializer
    def _to_mapping(self) -> dict[str, Choice]:
        return dict(self.choices)

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> Self:
        """From a mapping."""
        return cls(choices=tuple(choices.items()))

    def __getitem__(self, axis: str) -> Choice:
        return dict(self.choices)[axis]

    def __str__(self) -> str:
        return " ".join(f"{axis}={choice:g}" for axis, choice in self.choices)


class Axis(Record):
    """One dimension of a space and its choices, in ascending order."""

    name: str
    choices: tuple[Choice, ...]


class Space(Record):
    """A finite set of archs: the product of its axes."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """How many archs there are."""
        return math.prod(len(axis.choices) for axis in self.axes)

    def __iter__(self) -> Iterator[Arch]:  # type: ignore[override]  # a space is its archs, not its fields
        names = [axis.name for axis in self.axes]
        for combination in itertools.product(*(axis.choices for axis in self.axes)):
            yield Arch(choices=tuple(zip(names, combination, strict=True)))

    def __contains__(self, arch: Arch) -> bool:
        choices = {axis.name: axis.choices for axis in self.axes}
        return len(arch.choices) == len(choices) and all(
            choice in choices.get(name, ()) for name, choice in arch.choices
        )

    def at(self, index: int) -> Arch:
        """The arch with a given index in iteration order. Raises IndexError."""
        if not 0 <= index < self.size:
            raise IndexError(f"arch {index} of a space of {self.size}")
        picks: list[tuple[str, Choice]] = []
        for axis in reversed(self.axes):
            index, digit = divmod(index, len(axis.choices))
            picks.append((axis.name, axis.choices[digit]))
        return Arch(choices=tuple(reversed(picks)))

    def index(self, arch: Arch) -> int:
        """The position of an arch in iteration order: the inverse of `at`. Raises KeyError or ValueError on others."""
        chosen, index = dict(arch.choices), 0
        for axis in self.axes:
            index = index * len(axis.choices) + axis.choices.index(chosen[axis.name])
        return index

    def indices(self, count: int, seed: int) -> list[int]:
        """Indices of all archs, ascending, or of ``count`` (2 at least): both ends, and others evenly at random."""
        if self.size <= count:
            return list(range(self.size))
        drawn, rng = {0, self.size - 1}, random.Random(seed)  # numpy's generators end at 64 bits
        while len(drawn) < count:
            drawn.add(rng.randrange(self.size))
        return sorted(drawn)

    def encode(self, arch: Arch) -> tuple[float, ...]:
        """Each axis as the rank of its choice, scaled to 0..1."""
        return tuple(axis.choices.index(arch[axis.name]) / max(1, len(axis.choices) - 1) for axis in self.axes)
