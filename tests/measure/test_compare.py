"""Comparisons on the fake device: false positives, true differences, ties, pairing under drift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome, SentinelReading
from edgekd.errors import Unstable
from edgekd.measure.compare import Comparison, aa_noise, compare, critical_u, order, p5_us
from edgekd.measure.sentinel import is_unstable
from edgekd.testing.fakes import FakeDevice, TimingNoise

BACKEND = Backend(runtime="litert", provider="xnnpack")
QUIET = TimingNoise(low=0.002)
NASTY = TimingNoise(low=0.003, busy=0.15, busy_by=0.3)


def job(name, size_bytes=1000):
    artefact = Artefact(path=Path(f"{name}.tflite"), format=Format.TFLITE, sha256=f"{name:0>64}", size_bytes=size_bytes)
    return Job(artefact=artefact, backend=BACKEND)


def batch(latencies, noise=QUIET, processes=5, seed=0, **options):
    device = FakeDevice(latencies, noise=noise, seed=seed, **options)
    return device.open().measure([job(name) for name in latencies], MeasurePlan(processes=processes))


@pytest.mark.parametrize("noise", [QUIET, NASTY], ids=["quiet", "nasty"])
@pytest.mark.parametrize("processes", [3, 5, 8])
@pytest.mark.slow
def test_identical_artefacts_are_told_apart_in_at_most_5_of_100(noise, processes):
    false = 0
    for seed in range(400):
        a, b = batch({"a": 100.0, "b": 100.0}, noise, processes, seed)
        false += compare(a, b).distinguishable
    assert false <= 0.05 * 400


@pytest.mark.parametrize("noise", [QUIET, NASTY], ids=["quiet", "nasty"])
@pytest.mark.parametrize("processes", [5, 20])
@pytest.mark.slow
def test_of_tables_of_eight_identical_artefacts_at_most_5_of_100_have_two_places(noise, processes):
    false = 0
    for seed in range(120):
        measured = batch(dict.fromkeys("abcdefgh", 100.0), noise, processes, seed)
        false += set(order(measured, 0.0)) != {1}
    assert false <= 0.05 * 120


def test_five_percent_are_seen_among_eight():
    measured = batch(dict.fromkeys("abcdefg", 100.0) | {"h": 105.0})
    assert order(measured, aa_noise(measured)) == (1, 1, 1, 1, 1, 1, 1, 8)


def test_ten_percent_is_seen_and_has_the_right_sign():
    a, b = batch({"a": 110.0, "b": 100.0})
    found = compare(a, b)
    assert found.distinguishable
    assert found.low <= 1.10 <= found.high
    assert found.words == "1.10x slower"
    assert compare(b, a).words == "1.10x faster"


@pytest.mark.slow
def test_the_interval_covers_the_true_ratio():
    hits = 0
    for seed in range(300):
        a, b = batch({"a": 103.0, "b": 100.0}, NASTY, 6, seed)
        found = compare(a, b)
        hits += found.low <= 1.03 <= found.high
    assert hits >= 0.93 * 300


@pytest.mark.parametrize(("processes", "alpha"), [((2, 2), 0.05), ((3, 3), 0.05), ((2, 6), 0.05), ((3, 3), 0.01)])
def test_too_few_processes_for_ranks_have_welchs_interval(processes, alpha):
    a, b = (
        batch({name: 100.0}, TimingNoise(low=0.02), count, seed=3)[0]
        for name, count in zip("ab", processes, strict=True)
    )
    found = compare(a, b, alpha=alpha)
    x, y = (np.log([process.p5_us for process in m.processes]) for m in (a, b))
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(1 - alpha)
    ratio = p5_us(a) / p5_us(b)
    assert found.low == pytest.approx(min(np.exp(expected.low), ratio))
    assert found.high == pytest.approx(max(np.exp(expected.high), ratio))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.4, "1.40x slower"), (0.8, "1.25x faster"), (1.0034, "1.003x slower"), (0.998, "1.002x faster")],
)
def test_a_claim_is_never_of_no_difference(ratio, words):
    assert Comparison(ratio=ratio, low=ratio, high=ratio, distinguishable=True).words == words


def test_a_difference_below_the_noise_is_not_claimed():
    a, b = batch({"a": 102.0, "b": 100.0})
    assert compare(a, b, noise=0.001).distinguishable
    assert not compare(a, b, noise=0.05).distinguishable


def test_one_process_can_never_tell():
    a, b = batch({"a": 300.0, "b": 100.0}, processes=1)
    assert not compare(a, b).distinguishable


def test_pairing_sees_through_a_machine_that_slows():
    slowing = TimingNoise(low=0.001, drift=200.0)
    a, b = batch({"a": 105.0, "b": 100.0}, slowing, processes=8)
    spread = np.std([p.p5_us for p in a.processes]) / p5_us(a)
    assert spread > 0.05
    found = compare(a, b, noise=0.005)
    assert found.low > 1.0
    assert found.high < 1.12


def test_three_readings_of_the_sentinel_choose_no_test():
    a, b = batch({"a": 105.0, "b": 100.0}, TimingNoise(low=0.001, drift=2000.0), processes=3)
    assert is_unstable(a)
    still = SentinelReading(p5_us=(50.0,) * len(a.sentinel.p5_us), drift=0.0)
    assert compare(a, b, 0.005) == compare(a.but(sentinel=still), b.but(sentinel=still), 0.005)


def test_equals_share_a_place_and_failures_have_none():
    latencies = {"a": 100.0, "b": 150.0, "c": 100.0, "d": 90.0, "e": 120.0}
    measured = batch(latencies, outcomes={"e": Outcome.CRASHED})
    assert order(measured, aa_noise(measured)) == (2, 4, 2, 1, 0)


def test_noise_grows_with_the_machines_and_counts_real_pairs():
    quiet, nasty = (aa_noise(batch({"a": 100.0, "b": 200.0}, noise)) for noise in (QUIET, NASTY))
    assert 0.001 <= quiet < 0.02
    assert nasty > quiet
    a, b = batch({"a": 100.0, "b": 130.0})
    assert aa_noise([a, b.but(sha256=a.sha256)]) > 0.25


def test_what_failed_cannot_be_compared():
    a, b = batch({"a": 100.0, "b": 100.0}, outcomes={"b": Outcome.HUNG})
    with pytest.raises(Unstable, match="hung"):
        compare(a, b)


@pytest.mark.parametrize("n", [4, 5, 7])
@pytest.mark.parametrize("m", [4, 6])
def test_the_rank_test_is_exact(n, m):
    cut = critical_u(n, m)

    # samples with U = cut and U = cut + 1, put to scipy
    def p_value(u):
        x = np.arange(m, dtype=float)
        y = np.full(n, m - 0.5) + np.arange(n) * 0.01
        left = u
        for i in range(n):
            move = min(left, m)
            y[i] -= move
            left -= move
        return stats.mannwhitneyu(x, y, method="exact").pvalue

    assert p_value(cut) <= 0.05
    assert p_value(cut + 1) > 0.05
