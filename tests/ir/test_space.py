"""Archs and spaces: order of iteration, positions in it, categories, and axes that exist under conditions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.ir.space import Arch, Axis, Condition, Space

SPACE = Space(
    axes=(
        Axis(name="width", choices=(8, 16, 24)),
        Axis(name="depth", choices=(1, 2)),
        Axis(name="scale", choices=(0.5, 1.0)),
    )
)


def test_at_and_index_follow_the_order_of_iteration():
    archs = list(SPACE)
    assert len(archs) == SPACE.size == 12
    assert [SPACE.at(number) for number in range(SPACE.size)] == archs
    assert [SPACE.index(arch) for arch in archs] == list(range(SPACE.size))


def test_the_last_axis_varies_fastest():
    assert SPACE.index(Arch.of({"width": 8, "depth": 1, "scale": 1.0})) == 1
    assert SPACE.index(Arch.of({"width": 24, "depth": 1, "scale": 0.5})) == 8


def test_a_space_of_no_axes_has_one_arch():
    alone = Space(axes=())
    assert (alone.size, alone.index(Arch.of({})), alone.at(0)) == (1, 0, Arch.of({}))


@pytest.mark.parametrize(
    ("choices", "error"),
    [({"width": 9, "depth": 1, "scale": 1.0}, ValueError), ({"width": 8, "depth": 1}, KeyError)],
)
def test_an_arch_of_another_space_has_no_index(choices, error):
    with pytest.raises(error):
        SPACE.index(Arch.of(choices))


@pytest.mark.parametrize("number", [-1, 12])
def test_a_position_outside_the_space_is_refused(number):
    with pytest.raises(IndexError):
        SPACE.at(number)


def only_where(axis, *choices):
    return (Condition(axis=axis, choices=choices),)


CONDITIONAL = Space(
    axes=(
        Axis(name="depth1", choices=(1, 2)),
        Axis(name="depth2", choices=(0, 1)),
        Axis(name="depth3", choices=(0, 1, 2), when=only_where("depth2", 1)),
        Axis(name="block3", choices=("separable", "basic"), when=only_where("depth3", 1, 2)),
        Axis(name="width2", choices=(8, 16, 24), when=only_where("depth2", 1)),
        Axis(name="scale", choices=(0.5, 1.0), when=(*only_where("block3", "basic"), *only_where("depth1", 2))),
    )
)


def test_each_arch_of_a_conditional_space_counts_once():
    archs = list(CONDITIONAL)
    ends = {"depth2": 0}, {"depth2": 1, "depth3": 0}
    # depth2 0: one; depth3 0: three widths; else 2 depths x 3 widths x (separable, basic with its scales)
    assert len(set(archs)) == len(archs) == CONDITIONAL.size == (1 + 3 + 2 * 3 * 2) + (1 + 3 + 2 * 3 * 3)
    assert [CONDITIONAL.at(number) for number in range(CONDITIONAL.size)] == archs
    assert [CONDITIONAL.index(arch) for arch in archs] == list(range(CONDITIONAL.size))
    assert Arch.of({"depth1": 1, **ends[0]}) in CONDITIONAL
    assert Arch.of({"depth1": 1, "width2": 8, **ends[1]}) in CONDITIONAL
    assert Arch.of({"depth1": 1, "width2": 8, **ends[0]}) not in CONDITIONAL
    assert Arch.of({"depth1": 1, **ends[1]}) not in CONDITIONAL
    with pytest.raises(ValueError, match="do not exist in it: width2"):
        CONDITIONAL.index(Arch.of({"depth1": 1, "width2": 8, **ends[0]}))


def test_what_an_arch_lacks_makes_no_difference():
    one = CONDITIONAL.arch({"depth1": 2, "depth2": 0, "width2": 24, "depth3": 2, "block3": "basic"})
    assert one == CONDITIONAL.arch({"depth1": 2, "width2": 8}) == Arch.of({"depth1": 2, "depth2": 0})
    assert str(CONDITIONAL.at(CONDITIONAL.size - 1)) == "block3=basic depth1=2 depth2=1 depth3=2 scale=1 width2=24"


def test_categories_are_as_far_from_each_other_as_the_ends_of_an_axis():
    both = [CONDITIONAL.arch({"depth2": 1, "depth3": 2, "block3": kind}) for kind in ("separable", "basic")]
    one, other = map(CONDITIONAL.encode, both)
    assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) == 1.0
    assert len({len(CONDITIONAL.encode(arch)) for arch in CONDITIONAL}) == 1


def test_they_are_read_back_and_plain_ones_are_written_as_ever():
    assert Space.model_validate_json(CONDITIONAL.model_dump_json()) == CONDITIONAL
    arch = CONDITIONAL.at(CONDITIONAL.size - 1)
    assert Arch.model_validate_json(arch.model_dump_json()) == arch
    assert SPACE.axes[0].model_dump(mode="json") == {"name": "width", "choices": [8, 16, 24]}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([{"name": "a", "choices": [1, "two"]}], "mixes numbers and categories"),
        ([{"name": "a", "choices": [1], "when": [{"axis": "b", "choices": [1]}]}], "no axis before it"),
    ],
)
def test_axes_without_a_meaning_are_refused(axes, message):
    with pytest.raises(ValidationError, match=message):
        Space.model_validate({"axes": axes})
