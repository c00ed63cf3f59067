"""The expectation against enumeration; samples, sharpening, the mode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edgekd.ir.space import Arch, Axis, Condition, Space
from edgekd.students.supernet.block_costs import BlockCost, Cost, Table
from edgekd.students.supernet.choices import Choices, expected

AXES = (
    Axis(name="depth", choices=(1, 2, 3)),
    Axis(name="one", choices=(4,)),
    Axis(name="width1", choices=(8, 16)),
    Axis(name="width2", choices=(8, 16, 24, 32)),
)


def some_cost(rng):
    return Cost(
        3.0,
        (
            Table(("width1", "width2"), rng.random((2, 4))),
            Table(("width2", "depth"), rng.random((4, 3))),
            Table(("one",), rng.random(1)),
            Table((), np.array(0.5)),
            Table(("depth", "width1", "width2"), rng.random((3, 2, 4))),
        ),
    )


def moved(seed=0):
    choices = Choices(AXES).double()
    with torch.no_grad():
        for logits in choices.logits.values():
            logits.copy_(torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)))
    return choices


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_expectation_is_exact(temperature):
    cost, choices = some_cost(np.random.default_rng(0)), moved()
    rows = choices.probabilities(temperature)
    total = 0.0
    for ranks in itertools.product(*(range(len(axis.choices)) for axis in AXES)):
        arch = Arch.of({axis.name: axis.choices[rank] for axis, rank in zip(AXES, ranks, strict=True)})
        probability = np.prod([rows[axis.name][rank].item() for axis, rank in zip(AXES, ranks, strict=True)])
        total += probability * cost.of(arch, AXES)
    assert expected(cost, rows).item() == pytest.approx(total, rel=1e-12)
    assert expected(cost.merged().times(2.0), rows).item() == pytest.approx(2 * total, rel=1e-12)


def test_its_gradient_is_right():
    cost, choices = some_cost(np.random.default_rng(1)), moved(1)
    logits = [choices.logits[axis.name] for axis in AXES]

    def value(*given):
        return expected(cost, {a.name: torch.softmax(row, 0) for a, row in zip(AXES, given, strict=True)})

    assert torch.autograd.gradcheck(value, logits)


def test_one_arch_costs_what_it_costs():
    cost, space = some_cost(np.random.default_rng(2)), Space(axes=AXES)
    for arch in space:
        found = expected(cost, {n: row.double() for n, row in Choices(AXES).picks(arch).items()}).item()
        assert found == pytest.approx(cost.of(arch, AXES), rel=1e-12)


def test_it_sharpens_to_its_mode():
    choices = moved(3)
    bits = [choices.open_bits(temperature) for temperature in (1.0, 0.5, 0.1, 0.001)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] == pytest.approx(0.0, abs=1e-3)
    rows = choices.probabilities(0.001)
    ranks = {axis.name: int(rows[axis.name].argmax()) for axis in AXES}
    assert choices.mode() == Arch.of({axis.name: axis.choices[ranks[axis.name]] for axis in AXES})
    assert Choices(AXES).open_bits() == pytest.approx(np.log2(24))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.75, 1.25])
def test_it_leans_to_the_most_open_choice_of_a_cost(share):
    rates = np.arange(1.0, 5.0)
    whole = Cost(1.0, (Table(("width2",), rates), Table(("depth",), np.array([1.0, 2.0, 3.0]))))
    even = expected(whole, Choices(AXES).probabilities()).item()
    cost = whole.times(1.0 / (share * even))
    choices = Choices(AXES)
    choices.lean([cost])
    assert expected(cost, choices.probabilities()).item() == pytest.approx(1.0, abs=0.04)
    rows = choices.probabilities()
    assert rows["width1"].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)  # it costs nothing
    steps = np.diff(rows["width2"].log().tolist())
    assert steps == pytest.approx(np.full(3, steps[0]), abs=0.1)  # the most open one is exponential in the cost
    assert (steps[0] < 0) == (share < 1)


@pytest.mark.slow
def test_samples_follow_the_distribution():
    choices, generator = moved(4), torch.Generator().manual_seed(0)
    counts = dict.fromkeys((8, 16, 24, 32), 0)
    for _ in range(3000):
        row = choices.sampled(1.0, generator)["width2"]
        assert row.sum().item() == pytest.approx(1.0)
        counts[AXES[3].choices[int(row.argmax())]] += 1
    wanted = choices.probabilities()["width2"].tolist()
    assert [count / 3000 for count in counts.values()] == pytest.approx(wanted, abs=0.03)


def test_low_temperatures_sample_single_archs():
    choices, generator = moved(5), torch.Generator().manual_seed(0)
    largest = [float(choices.sampled(0.1, generator)["width2"].max()) for _ in range(200)]
    assert np.mean(largest) > 0.95


def test_block_costs_give_their_tables():
    block = BlockCost("a", ("width1",), {"macs": np.array([1.0, 2.0])})
    assert Cost.counted([block], "macs", 3.0).of(Arch.of({"width1": 16}), [AXES[2]]) == 6.0


def test_an_axis_that_does_not_exist_costs_nothing_and_is_no_part_of_the_mode():
    deep = (Condition(axis="depth", choices=(1, 2)),)
    axes = (Axis(name="depth", choices=(0, 1, 2)), Axis(name="kind", choices=("thin", "thick"), when=deep))
    cost = Cost(1.0, (Table(("depth", "kind"), np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])),))
    choices = Choices(axes)
    for arch in Space(axes=axes):
        assert expected(cost, choices.picks(arch)).item() == cost.of(arch, axes)
    assert expected(cost, choices.probabilities()).item() == pytest.approx(1.0 + (0.0 + 1.5 + 3.0) / 3)
    with torch.no_grad():
        choices.logits["depth"][0], choices.logits["kind"][1] = 1.0, 1.0
    assert choices.mode() == Arch.of({"depth": 0})
