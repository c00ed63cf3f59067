"""The model of latency: a known additive table is found again, and the error reported is that of unseen archs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from edgekd.measure.prediction.additive import LatencyModel, fit_latency
from edgekd.students.resnet import ResNet
from edgekd.students.supernet.block_costs import Cost, Table
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="paper", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=10), data="0" * 64)
FAMILY = ResNet.model_validate({"space": {"width": [8, 64], "depth": [1, 3]}})
SPACE = FAMILY.space(SPEC)


@cache
def block_costs():
    return FAMILY.block_costs(SPEC)


def truth():
    """Every part has a rate of its own, in microseconds."""
    rates = {block.name: 1e-5 * (1 + number) for number, block in enumerate(block_costs())}
    tables = [
        Table(p.axes, rates[p.name] * p.counts["macs"] + 0.7 * p.counts["operators"] + 1e-5 * p.counts["bytes"])
        for p in block_costs()
    ]
    return Cost(12.0, tuple(tables))


def sample(count, noise, seed=0):
    archs = [SPACE.at(index) for index in SPACE.indices(count, seed)]
    rng = np.random.default_rng(seed)
    return archs, [truth().of(arch, SPACE.axes) * (1 + noise * rng.standard_normal()) for arch in archs]


def unseen_error(model: LatencyModel):
    cost = model.cost(block_costs())
    archs = [SPACE.at(index) for index in SPACE.indices(200, 99)]
    return np.array([cost.of(arch, SPACE.axes) / truth().of(arch, SPACE.axes) - 1 for arch in archs])


@pytest.mark.slow
def test_a_known_table_is_found():
    model = fit_latency(block_costs(), SPACE.axes, *sample(40, 0.0), 500.0)
    assert np.abs(unseen_error(model)).max() < 0.02
    assert model.samples == 40
    assert min(model.coefficients.values()) > 0


@pytest.mark.slow
def test_the_reported_error_is_that_of_unseen_archs():
    model = fit_latency(block_costs(), SPACE.axes, *sample(30, 0.03), 500.0)
    true = np.median(np.abs(unseen_error(model)))
    assert model.error_median == pytest.approx(0.03, abs=0.03)
    assert true < 2 * model.error_median + 0.01
    assert model.error_worst >= model.error_median


@pytest.mark.slow
def test_it_is_best_near_the_budget():
    bent = [(arch, us + 2e-4 * us**2) for arch, us in zip(*sample(60, 0.0), strict=True)]  # no additive model fits
    archs, times = zip(*bent, strict=True)

    def error(near_us, at):
        cost = fit_latency(block_costs(), SPACE.axes, archs, times, near_us).cost(block_costs())
        errors = [abs(cost.of(arch, SPACE.axes) / us - 1) for arch, us in bent if 0.5 < us / at < 2]
        return np.median(errors)

    low, high = np.quantile(times, (0.1, 0.9))
    assert error(low, low) < error(high, low)
    assert error(high, high) < error(low, high)


@pytest.mark.slow
def test_vectors_of_channels_are_noticed():
    steps = Cost(5.0, tuple(Table(p.axes, 1e-5 * p.counts["macs16"]) for p in block_costs()))
    archs = [SPACE.at(index) for index in SPACE.indices(30, 0)]
    model = fit_latency(block_costs(), SPACE.axes, archs, [steps.of(arch, SPACE.axes) for arch in archs], 100.0)
    assert model.form.startswith("macs16")
    assert model.error_worst < 1e-3


@pytest.mark.slow
def test_the_same_figures_give_the_same_model():
    one, other = (fit_latency(block_costs(), SPACE.axes, *sample(16, 0.05), 300.0) for _ in range(2))
    assert one == other


def test_three_are_too_few():
    archs, times = sample(3, 0.0)
    with pytest.raises(ValueError, match="four of each"):
        fit_latency(block_costs(), SPACE.axes, archs, times, 1.0)
