"""The most probable archs that keep the budget, against sorting the whole space."""

from __future__ import annotations

import numpy as np

from edgekd.search.relaxed.nearby import index_of, nearest_archs
from edgekd.students._protocol import Axis, Space
from edgekd.students.pieces import Cost, Table

AXES = (
    Axis(name="a", choices=(1, 2, 3)),
    Axis(name="b", choices=(8, 16, 24, 32)),
    Axis(name="c", choices=(1, 2)),
    Axis(name="d", choices=(8, 16, 24, 32, 40)),
)
SPACE = Space(axes=AXES)


def paper(seed):
    rng = np.random.default_rng(seed)
    logits = {axis.name: tuple(rng.standard_normal(len(axis.choices)).round(6)) for axis in AXES}
    tables = (Table(("a", "b"), rng.random((3, 4)).cumsum(0).cumsum(1)), Table(("d",), rng.random(5).cumsum()))
    return logits, Cost(1.0, tables)


def test_they_come_in_the_order_of_their_probability():
    for seed in range(5):
        logits, cost = paper(seed)
        found = nearest_archs(AXES, logits, cost, 3.0)

        def probability(index, logits=logits):
            arch = SPACE.at(index)
            return sum(logits[axis.name][axis.choices.index(arch[axis.name])] for axis in AXES)

        costs = [cost.of(SPACE.at(index), AXES) for index in range(SPACE.size)]
        near = [index for index in range(SPACE.size) if 0.68 <= costs[index] / 3.0 <= 1.25]
        below = [index for index in range(SPACE.size) if costs[index] / 3.0 < 0.68]
        wanted = sorted(near, key=lambda i: -probability(i)) + sorted(below, key=lambda i: -probability(i))[:8]
        assert [index for index, _ in found][: min(40, len(near))] == wanted[: min(40, len(near))]
        if len(near) < 40:
            assert [index for index, _ in found] == wanted
        assert all(abs(us - cost.of(SPACE.at(index), AXES)) < 1e-6 for index, us in found)


def test_indices_are_those_of_the_space():
    assert [index_of(SPACE, SPACE.at(index)) for index in range(SPACE.size)] == list(range(SPACE.size))


def test_a_choice_far_over_the_budget_is_brought_down():
    logits = {axis.name: tuple(float(10 * rank) for rank in range(len(axis.choices))) for axis in AXES}
    _, cost = paper(0)
    least = min(cost.of(arch, AXES) for arch in SPACE)
    found = nearest_archs(AXES, logits, cost, 1.05 * least)
    assert any(us <= 1.05 * least for _, us in found)


def test_where_nothing_fits_the_least_is_offered():
    logits, cost = paper(1)
    found = nearest_archs(AXES, logits, cost, 0.1)
    assert len(found) == 1
    assert found[0][1] == round(min(cost.of(arch, AXES) for arch in SPACE), 6)
