"""Search spaces: archs, axes and conditions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

from pydantic import model_serializer, model_validator

from edgekd.records import Extended, Record

__all__ = ["Arch", "Axis", "Choice", "Condition", "Space"]

Choice = int | float | str


class Arch(Record):
    """Point of a space: a frozen, hashable mapping from axis to choice, in alphabetical order of axes.

    It has exactly the axes that exist with its choices.
    """

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
        """Build an arch from a mapping."""
        return cls(choices=tuple(choices.items()))

    def __getitem__(self, axis: str) -> Choice:
        return dict(self.choices)[axis]

    def __contains__(self, axis: str) -> bool:
        return any(name == axis for name, _ in self.choices)

    def __str__(self) -> str:
        return " ".join(
            f"{axis}={choice if isinstance(choice, str) else f'{choice:g}'}" for axis, choice in self.choices
        )


class Condition(Record):
    """Condition on an axis: one of these choices."""

    axis: str
    choices: tuple[Choice, ...]

    def holds(self, picks: Mapping[str, Choice]) -> bool:
        """Return whether the axis exists among ``picks`` and has one of these choices."""
        return self.axis in picks and picks[self.axis] in self.choices


class Axis(Extended):
    """Dimension of a space: numbers in ascending order, or categories (strings), the costliest last.

    A conditional axis exists if every condition of ``when`` holds.
    """

    added: ClassVar[frozenset[str]] = frozenset({"when"})

    name: str
    choices: tuple[Choice, ...]
    when: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if len({isinstance(choice, str) for choice in self.choices}) > 1:
            raise ValueError(f"axis {self.name} mixes numbers and categories: {self.choices}")
        return self

    @property
    def categorical(self) -> bool:
        """True if its choices have no order."""
        return bool(self.choices) and isinstance(self.choices[0], str)

    def exists(self, picks: Mapping[str, Choice]) -> bool:
        """Return whether the axis exists in an arch with these choices of earlier axes."""
        return all(condition.holds(picks) for condition in self.when)


class Space(Record):
    """Finite set of archs: every combination of the choices of its axes; an axis that does not exist has none.

    Conditions refer to earlier axes. Raises ValueError otherwise.
    """

    axes: tuple[Axis, ...]

    @model_validator(mode="after")
    def _conditions_look_back(self) -> Self:
        before = dict[str, tuple[Choice, ...]]()
        for axis in self.axes:
            for condition in axis.when:
                if not set(condition.choices) <= set(before.get(condition.axis, ())):
                    raise ValueError(
                        f"axis {axis.name} exists where {condition.axis} is one of {condition.choices}, "
                        f"and no axis before it has these choices"
                    )
            before[axis.name] = axis.choices
        return self

    @property
    def size(self) -> int:
        """Number of archs."""
        return _layout(self.axes).left(0, {})

    def __iter__(self) -> Iterator[Arch]:  # type: ignore[override]  # a space is its archs, not its fields
        for picks in _combined(self.axes, {}):
            yield Arch.of(picks)

    def __contains__(self, arch: Arch) -> bool:
        try:
            self.index(arch)
        except (KeyError, ValueError):
            return False
        return True

    def arch(self, wanted: Mapping[str, Choice]) -> Arch:
        """Return the arch with the wanted choice of each axis that exists, or the axis's first choice."""
        picks: dict[str, Choice] = {}
        for axis in self.axes:
            if axis.exists(picks):
                picks[axis.name] = wanted.get(axis.name, axis.choices[0])
        return Arch.of(picks)

    def at(self, index: int) -> Arch:
        """Return the arch with this index in iteration order. Raises IndexError."""
        layout = _layout(self.axes)
        if not 0 <= index < layout.left(0, {}):
            raise IndexError(f"arch {index} of a space of {self.size}")
        picks: dict[str, Choice] = {}
        for place, axis in enumerate(self.axes):
            if not axis.exists(picks):
                continue
            if layout.decides[place]:
                for choice in axis.choices:
                    picks[axis.name] = choice
                    below = layout.left(place + 1, picks)
                    if index < below:
                        break
                    index -= below
            else:
                digit, index = divmod(index, layout.left(place + 1, picks))
                picks[axis.name] = axis.choices[digit]
        return Arch.of(picks)

    def index(self, arch: Arch) -> int:
        """Return the index of an arch in iteration order, the inverse of `at`.

        Raises KeyError or ValueError for others.
        """
        layout, chosen, index = _layout(self.axes), dict(arch.choices), 0
        picks: dict[str, Choice] = {}
        for place, axis in enumerate(self.axes):
            if not axis.exists(picks):
                continue
            digit = axis.choices.index(chosen[axis.name])
            if layout.decides[place]:
                for choice in axis.choices[:digit]:
                    index += layout.left(place + 1, {**picks, axis.name: choice})
            picks[axis.name] = chosen[axis.name]
            if not layout.decides[place]:
                index += digit * layout.left(place + 1, picks)
        if len(picks) != len(chosen):
            raise ValueError(f"{arch} has axes that do not exist in it: {', '.join(sorted(set(chosen) - set(picks)))}")
        return index

    def indices(self, count: int, seed: int) -> list[int]:
        """Return the indices of all archs, ascending, or of ``count`` (>= 2): both ends, and others at random."""
        if self.size <= count:
            return list(range(self.size))
        drawn, rng = {0, self.size - 1}, random.Random(seed)  # numpy's generators end at 64 bits
        while len(drawn) < count:
            drawn.add(rng.randrange(self.size))
        return sorted(drawn)

    def encode(self, arch: Arch) -> tuple[float, ...]:
        """Encode an arch for L1 distances and models: both ends of an axis, or two of its categories, are 1 apart.

        A number is the rank of the choice, scaled to 0..1; a category is one-hot with 0.5 for its choice. An axis that
        does not exist has zeros.
        """
        found: list[float] = []
        picks = dict(arch.choices)
        for axis in self.axes:
            rank = axis.choices.index(picks[axis.name]) if axis.name in picks else None
            if axis.categorical:
                found += [0.5 * (place == rank) for place in range(len(axis.choices))]
            else:
                found.append((rank or 0) / max(1, len(axis.choices) - 1))
        return tuple(found)


class _Layout:
    """Numbers of archs with given first choices."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axes = axes
        asked = [{condition.axis for later in axes[place:] for condition in later.when} for place in range(len(axes))]
        names = [axis.name for axis in axes]
        self.decides = [name in later for name, later in zip(names, [*asked, set()][1:], strict=True)]
        """For each axis, whether any axis behind it asks for its choice."""
        self._conditions = [
            tuple(c for later in axes[place:] for c in later.when if c.axis in names[:place])
            for place in range(len(axes))
        ]
        self._left: dict[tuple[int, tuple[bool, ...]], int] = {}

    def left(self, place: int, picks: Mapping[str, Choice]) -> int:
        """Return the number of combinations of the axes from ``place`` on, given the choices before."""
        if place == len(self._axes):
            return 1
        # cached by the conditions that the choices so far fulfil, which are fewer than the choices
        key = (place, tuple(condition.holds(picks) for condition in self._conditions[place]))
        if key not in self._left:
            axis = self._axes[place]
            if not axis.exists(picks):
                found = self.left(place + 1, picks)
            elif self.decides[place]:
                found = sum(self.left(place + 1, {**picks, axis.name: choice}) for choice in axis.choices)
            else:
                found = len(axis.choices) * self.left(place + 1, picks)
            self._left[key] = found
        return self._left[key]


@lru_cache(maxsize=64)
def _layout(axes: tuple[Axis, ...]) -> _Layout:
    return _Layout(axes)


def _combined(axes: Sequence[Axis], picks: Mapping[str, Choice]) -> Iterator[Mapping[str, Choice]]:
    """Yield every combination, the last axis varying fastest."""
    if not axes:
        yield picks
    elif not axes[0].exists(picks):
        yield from _combined(axes[1:], picks)
    else:
        for choice in axes[0].choices:
            yield from _combined(axes[1:], {**picks, axes[0].name: choice})
