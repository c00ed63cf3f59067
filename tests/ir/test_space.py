"""Archs and spaces: order of iteration, and positions in it."""

from __future__ import annotations

import pytest

from edgekd.ir.space import Arch, Axis, Space

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
