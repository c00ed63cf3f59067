"""Counted costs are fitted without a negative one, in the form that predicts best."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure.prediction.costs import fit_costs, kernel_costs
from tests.measure.prediction.device_on_paper import latency_us, some_networks


def test_what_was_put_in_comes_out():
    networks = some_networks(30, seed=0)
    times = [2.0 + sum(3e-5 * k.macs + 2e-4 * (k.reads + k.writes + k.weights) + 0.5 for k in n) for n in networks]
    costs = fit_costs(networks, times)
    assert costs.vector == 1
    assert costs.coefficients["elements"] == pytest.approx(2e-4, rel=1e-2)
    for network, us in zip(networks, times, strict=True):
        assert costs.constant_us + kernel_costs(costs, network).sum() == pytest.approx(us, rel=1e-6)


def test_vectors_are_found():
    networks = some_networks(40, seed=1)
    assert fit_costs(networks, [latency_us(network) for network in networks]).vector == 16


def test_nothing_costs_less_than_nothing():
    networks = some_networks(20, seed=2)
    times = np.random.default_rng(0).uniform(5.0, 500.0, 20)
    costs = fit_costs(networks, list(times))
    assert costs.constant_us >= 0
    assert all(value > 0 for value in costs.coefficients.values())


def test_a_prior_is_scaled():
    networks = some_networks(6, seed=3)
    costs = fit_costs(
        networks,
        [7.0 * latency_us(network) for network in networks],
        prior=lambda kernels: np.array([latency_us((kernel,)) - 3.0 for kernel in kernels]),
    )
    assert costs.form.startswith("the prior")
    assert costs.coefficients["prior"] == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_few_networks_are_enough_for_a_proportion(count):
    networks = some_networks(count, seed=4)
    costs = fit_costs(networks, [1e-4 * sum(k.macs for k in network) for network in networks])
    found = [costs.constant_us + kernel_costs(costs, network).sum() for network in networks]
    assert found == pytest.approx([1e-4 * sum(k.macs for k in network) for network in networks], rel=0.3)


def test_one_network_says_nothing():
    with pytest.raises(ValueError, match="two of each at least"):
        fit_costs(some_networks(1, seed=5), [1.0])
