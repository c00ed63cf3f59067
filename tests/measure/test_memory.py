"""Memory of networks that were never measured."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure.memory import fit_memory, predict_memory
from tests.measure.prediction.device_on_paper import some_networks


def memory_bytes(kernels, seed=None):
    """Weights, the busiest kernel, half a MiB of the runtime's own, and what an allocator rounds up."""
    weights, busiest = sum(k.weights for k in kernels), max(k.reads + k.writes for k in kernels)
    noise = 0.0 if seed is None else float(np.random.default_rng(seed).uniform(0.0, 20_000.0))
    return 500_000 + 4.2 * weights + 4.0 * busiest + noise


def test_others_lie_in_the_interval():
    networks = some_networks(30, seed=0)
    fitted = fit_memory(networks, [memory_bytes(network, seed) for seed, network in enumerate(networks)])
    assert fitted.samples == 30
    assert 0 < fitted.error_bytes < 40_000
    inside = 0
    for seed, network in enumerate(some_networks(100, seed=1), start=100):
        value, least, most = predict_memory(fitted, network)
        assert least <= value <= most
        inside += least <= memory_bytes(network, seed) <= most
    assert inside >= 80


def test_nothing_takes_less_than_nothing():
    networks = some_networks(8, seed=2)
    fitted = fit_memory(networks, [0.0] * 8)
    assert predict_memory(fitted, networks[0]) == (0.0, 0.0, 0.0)


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="6 of each"):
        fit_memory(some_networks(5, seed=0), [1.0] * 5)
