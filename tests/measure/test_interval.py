"""Coverage of a fresh process, by simulation with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure.interval import fresh_process_interval, resampled_medians

TRIALS = 2000


def quiet(generator, size):
    return 100.0 * np.exp(generator.normal(0.0, 0.001, size))


def busy_neighbours(share):
    def draw(generator, size):
        raised = np.where(generator.random(size) < share, generator.gamma(2.0, 0.15, size), 0.0)
        return quiet(generator, size) * np.exp(raised)

    return draw


def exponential(generator, size):
    return 100.0 * np.exp(generator.exponential(0.12, size))


def heavy(generator, size):
    return 100.0 * np.exp(generator.standard_t(3, size) * 0.05)


NOISES = {
    "quiet": quiet,
    "3 % busy": busy_neighbours(0.03),
    "10 % busy": busy_neighbours(0.10),
    "exponential": exponential,
    "t with 3 df": heavy,
}


def coverage(draw, processes, interval=fresh_process_interval):
    values = draw(np.random.default_rng(7), (TRIALS, processes + 1))
    hits = 0
    for row in values:
        low, high = interval(row[:-1].tolist())
        hits += low <= row[-1] <= high
    return hits / TRIALS


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("processes", [5, 10])
def test_a_fresh_process_is_covered_in_90_of_100(noise, processes):
    assert coverage(NOISES[noise], processes) >= 0.90


def test_order_statistics_take_over_where_they_suffice():
    assert coverage(busy_neighbours(0.3), 40) >= 0.92


@pytest.mark.slow
def test_the_range_and_the_bootstrap_would_not_do():
    def bootstrap(values):
        medians = resampled_medians(values, len(values), 200, np.random.default_rng(0))
        return np.quantile(medians, 0.025), np.quantile(medians, 0.975)

    assert coverage(exponential, 5, lambda v: (min(v), max(v))) < 0.75
    assert coverage(exponential, 5, bootstrap) < 0.75


def test_low_quantile_of_a_quiet_machine_is_within_one_percent():
    values = quiet(np.random.default_rng(3), (500, 5))
    widths = [(high - low) / 100.0 for low, high in map(fresh_process_interval, values.tolist())]
    assert np.median(widths) <= 0.01


def test_one_slow_process_does_not_make_unseen_speeds_plausible():
    low, high = fresh_process_interval([100.0, 100.1, 99.9, 100.2, 150.0])
    assert low > 98.0
    assert high > 150.0


def test_equal_values_give_no_width_and_one_value_gives_much():
    assert fresh_process_interval([5.0, 5.0, 5.0]) == (5.0, 5.0)
    low, high = fresh_process_interval([100.0])
    assert low < 50.0
    assert high > 200.0


def test_zeros_stay_finite_and_not_negative():
    low, high = fresh_process_interval([0.0, 4096.0, 0.0, 0.0, 0.0])
    assert low == 0.0
    assert high >= 4096.0


def test_more_confidence_is_wider():
    values = [100.0, 101.0, 99.0, 103.0, 100.5]
    assert fresh_process_interval(values, 0.99)[1] > fresh_process_interval(values, 0.9)[1]


@pytest.mark.parametrize("bad", [[], [-1.0, 2.0]])
def test_nonsense_is_refused(bad):
    with pytest.raises(ValueError, match="process"):
        fresh_process_interval(bad)
    with pytest.raises(ValueError, match="confidence"):
        fresh_process_interval([1.0], 1.0)
