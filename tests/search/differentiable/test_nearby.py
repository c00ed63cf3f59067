"""The most probable archs that keep the budget, against sorting the whole space."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from edgekd.artefacts import Backend
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Axis, Condition, Space
from edgekd.search._protocol import CandidateRanking
from edgekd.search.differentiable.nearby import nearest_archs, next_of
from edgekd.store.records import Deployment
from edgekd.students.supernet.block_costs import Cost, Table

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
        found, _ = nearest_archs(AXES, logits, cost, 3.0)

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


def test_a_choice_far_over_the_budget_is_brought_down():
    logits = {axis.name: tuple(float(10 * rank) for rank in range(len(axis.choices))) for axis in AXES}
    _, cost = paper(0)
    least = min(cost.of(arch, AXES) for arch in SPACE)
    found, _ = nearest_archs(AXES, logits, cost, 1.05 * least)
    assert any(us <= 1.05 * least for _, us in found)


def test_where_nothing_fits_the_least_is_offered():
    logits, cost = paper(1)
    found, even = nearest_archs(AXES, logits, cost, 0.1)
    assert len(found) == 1
    assert even == ()
    assert found[0][1] == round(min(cost.of(arch, AXES) for arch in SPACE), 6)


WIDE = (
    Axis(name="depth1", choices=(1, 2)),
    Axis(name="depth2", choices=(1, 2, 3)),
    Axis(name="width1", choices=(8, 16, 24, 32)),
    Axis(name="width2", choices=(16, 32, 48, 64)),
)


def chosen_as(**one_each):
    return {axis.name: tuple(3.0 * (choice == one_each[axis.name]) for choice in axis.choices) for axis in WIDE}


def sized():
    """A microsecond a unit of width and depth, so that much is evenly scaled near any budget."""
    widths = [Table((axis.name,), np.array(axis.choices, float)) for axis in WIDE[2:]]
    depths = [Table((axis.name,), 8.0 * np.array(axis.choices)) for axis in WIDE[:2]]
    return Cost(0.0, (*widths, *depths))


def test_what_is_evenly_scaled_stands_beside():
    space, cost = Space(axes=WIDE), sized()
    found, even = nearest_archs(WIDE, chosen_as(depth1=1, depth2=3, width1=8, width2=64), cost, 96.0)
    assert {index for index, _ in found} >= set(even)
    shapes = {tuple(space.at(index).choices) for index in even}
    for arch in (dict(shape) for shape in shapes):
        assert arch["width2"] == 2 * arch["width1"]
        assert (arch["depth1"], arch["depth2"]) in {(1, 1), (1, 2), (2, 2), (2, 3)}
    assert any(dict(shape)["width1"] == 24 for shape in shapes)


def test_the_second_and_third_tries_are_evenly_scaled_and_spend_most():
    space, cost = Space(axes=WIDE), sized()
    found, even = nearest_archs(WIDE, chosen_as(depth1=1, depth2=3, width1=8, width2=64), cost, 96.0)
    order, predicted = zip(*found, strict=True)
    deployment = Deployment(backend=Backend.model_validate("litert/xnnpack"), precision=Precision.FLOAT32)
    ranking = CandidateRanking(deployment, order, predicted, 96.0, even)
    plan = SimpleNamespace(space=space)
    tried: list[int] = []
    while len(tried) < 5:
        pending = [SimpleNamespace(arch=space.at(index)) for index in tried]
        knowledge = SimpleNamespace(
            ranking=ranking, plan=plan, trials=(), pending=pending, allowed={deployment: tuple(sorted(order))}
        )
        index = next_of(knowledge)  # type: ignore[arg-type]
        assert index is not None
        tried.append(index)
    us = dict(found)
    assert [index in even for index in tried] == [False, True, True, False, False]
    spending = sorted((us[index] for index in even if us[index] <= 96.0), reverse=True)
    assert [us[index] for index in tried[1:3]] == spending[:2]
    assert len(set(tried)) == 5


def test_an_arch_that_lacks_an_axis_comes_once():
    deep = (Condition(axis="depth", choices=(1, 2)),)
    axes = (Axis(name="depth", choices=(0, 1, 2)), Axis(name="width", choices=(8, 16, 24), when=deep))
    cost = Cost(10.0, (Table(("depth", "width"), np.array([[0.0] * 3, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])),))
    order, even = nearest_archs(axes, {"depth": (1.0, 0.0, 0.0), "width": (0.0, 1.0, 0.0)}, cost, 14.0)
    indices = [index for index, _ in order]
    assert sorted(indices) == list(range(7))
    assert indices[0] == 0
    assert len(set(even)) == len(even)


def test_kinds_of_blocks_are_scaled_evenly_too():
    axes = (Axis(name="block1", choices=("separable", "basic")), Axis(name="block2", choices=("separable", "basic")))
    cost = Cost(10.0, (Table(("block1", "block2"), np.ones((2, 2))),))
    _, even = nearest_archs(axes, {"block1": (0.0, 1.0), "block2": (1.0, 0.0)}, cost, 11.0)
    assert [str(Space(axes=axes).at(index)) for index in even] == [
        "block1=separable block2=separable",
        "block1=basic block2=basic",
    ]
