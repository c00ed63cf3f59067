"""Networks chosen for what they reveal of others, on a device whose costs are written down."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure.prediction.choosing import choose_to_measure
from edgekd.measure.prediction.predictor import fit_predictor
from edgekd.store.predicted import Observation
from tests.measure.prediction.device_on_paper import latency_us, some_networks


def observations(networks):
    return [Observation(kernels=one, p5_us=latency_us(one, seed=number)) for number, one in enumerate(networks)]


def error(known, others):
    """The 95th percentile of the error on networks not seen."""
    found = fit_predictor(observations(known)).predict(others)
    truth = np.array([latency_us(network) for network in others])
    return float(np.quantile(np.abs([one.p5_us for one in found] / truth - 1.0), 0.95))


@pytest.mark.slow
def test_chosen_networks_predict_others_better_than_drawn_ones():
    listed, others = some_networks(150, seed=0), some_networks(150, seed=1)
    chosen = error([listed[place] for place in choose_to_measure(listed, 16)], others)
    drawn = [
        error([listed[int(place)] for place in np.random.default_rng(s).permutation(150)[:16]], others)
        for s in range(5)
    ]
    assert chosen < 0.9 * np.median(drawn)


def test_the_most_informative_come_first_and_none_twice():
    listed = some_networks(60, seed=2)
    places = choose_to_measure(listed, 20)
    assert len(set(places)) == 20
    assert choose_to_measure(listed, 5) == places[:5]
    assert sorted(choose_to_measure(listed[:4], 9)) == [0, 1, 2, 3]
    assert choose_to_measure([], 3) == []


@pytest.mark.slow
def test_what_was_seen_is_not_asked_again():
    listed = some_networks(40, seed=3)
    first = choose_to_measure(listed, 1)[0]
    assert choose_to_measure(listed, 1, seen=[listed[first]] * 3) != [first]
    predictor = fit_predictor(observations([listed[place] for place in range(12)]))
    assert not set(choose_to_measure(listed, 4, predictor)) & set(range(12))
