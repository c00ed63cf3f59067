"""Networks that were never measured, on a device whose costs are written down."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgekd.ir.kernels import Kernel
from edgekd.measure.prediction import predictor
from edgekd.measure.prediction.predictor import fit_predictor, fit_prior
from edgekd.store.predicted import Observation
from tests.measure.prediction.device_on_paper import latency_us, some_networks


def observations(networks, speed=1.0):
    return [
        Observation(kernels=network, p5_us=latency_us(network, speed, seed=number))
        for number, network in enumerate(networks)
    ]


@pytest.fixture(scope="module")
def fitted():
    return fit_predictor(observations(some_networks(40, seed=0)))


@pytest.mark.slow
def test_ten_percent_is_kept_on_others(fitted):
    others = some_networks(200, seed=1)
    truth = np.array([latency_us(network) for network in others])
    found = fitted.predict(others)
    errors = np.abs([one.p5_us for one in found] / truth - 1.0)
    assert np.quantile(errors, 0.95) < 0.10
    assert stats.spearmanr(truth, [one.p5_us for one in found]).statistic > 0.99
    inside = np.mean([one.least_us <= us <= one.most_us for one, us in zip(found, truth, strict=True)])
    assert 0.8 < inside <= 1.0


def test_the_held_out_error_is_that_of_networks_not_seen(fitted):
    others = some_networks(200, seed=2)
    errors = [
        abs(one.p5_us / latency_us(network) - 1.0) for one, network in zip(fitted.predict(others), others, strict=True)
    ]
    assert fitted.held_out.samples == 40
    assert 0.3 < np.median(errors) / fitted.held_out.median < 3.0
    assert fitted.held_out.worst >= fitted.held_out.p95 >= fitted.held_out.median


def test_wider_confidence_is_a_wider_interval(fitted):
    (network,) = some_networks(1, seed=3)
    half, most = fitted.predict([network], 0.5)[0], fitted.predict([network], 0.95)[0]
    assert most.least_us <= half.least_us <= half.p5_us == most.p5_us <= half.most_us <= most.most_us


@pytest.mark.slow
def test_ten_readings_and_a_prior_go_further_than_ten_alone(fitted):
    few, others = some_networks(10, seed=4), some_networks(150, seed=5)
    truth = np.array([latency_us(network, speed=2.5) for network in others])

    def error(predictor):
        return np.median(np.abs([one.p5_us for one in predictor.predict(others)] / truth - 1.0))

    with_prior = fit_predictor(observations(few, speed=2.5), prior=fitted)
    assert error(with_prior) < 0.5 * error(fit_predictor(observations(few, speed=2.5)))
    assert with_prior.prior is fitted or with_prior.prior == fitted


@pytest.mark.slow
def test_what_is_left_out_is_hidden_from_the_prior_too(monkeypatch):
    """Reference archs are measured on every deployment: a prior that knew them would flatter the held-out error."""
    shared, fits = some_networks(30, seed=7), []
    prior = fit_predictor(observations(shared))
    fit = predictor._fitted

    def noted(given, known, start=None):
        fits.append((given, known))
        return fit(given, known, start)

    monkeypatch.setattr(predictor, "_fitted", noted)
    own = observations(shared[:16], speed=2.0)
    fit_predictor(own, prior=prior)
    (whole, all_known), *folds = fits
    assert (list(whole), all_known) == (own, prior)
    assert len(folds) == 10
    for given, known in folds:
        left_out = {observation.kernels for observation in own} - {observation.kernels for observation in given}
        assert left_out
        assert not left_out & {observation.kernels for observation in known.observations}
        assert known.costs != prior.costs  # its coefficients too were fitted without them
        assert (known.costs.form, known.costs.vector) == (prior.costs.form, prior.costs.vector)


@pytest.mark.slow
def test_files_of_another_format_are_hidden_from_the_prior_as_well(monkeypatch):
    """One scales its input by a multiplication, another by none: it is the same network."""
    shared, fits = some_networks(30, seed=7), []
    scaled = [(Kernel("other", 3, 3, 32, 32, 1, 1, 0, 3072, 3072, 0), *network) for network in shared]
    prior = fit_prior(observations(scaled))
    fit = predictor._fitted
    monkeypatch.setattr(predictor, "_fitted", lambda *given: fits.append(given[1]) or fit(*given))
    fit_predictor(observations(shared[:16], speed=2.0), prior)
    whole, *folds = fits
    assert whole is prior
    assert sorted(len(prior.observations) - len(known.observations) for known in folds) == [1] * 4 + [2] * 6


@pytest.mark.slow
def test_a_prior_that_knows_none_of_them_stays_as_it_is(monkeypatch):
    prior, fits = fit_prior(observations(some_networks(30, seed=7))), []
    fit = predictor._fitted
    monkeypatch.setattr(predictor, "_fitted", lambda *given: fits.append(given[1]) or fit(*given))
    fit_predictor(observations(some_networks(12, seed=8), speed=2.0), prior)
    assert all(known is prior for known in fits)


@pytest.mark.slow
def test_a_prior_of_which_nothing_is_left_is_none(monkeypatch):
    """Or what it was itself scaled from."""
    shared, fits = some_networks(30, seed=7), []
    first = fit_prior(observations(some_networks(30, seed=8)))
    fit = predictor._fitted
    for below in (None, first):
        prior = fit_predictor(observations(shared[:4]), below)
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "_fitted", lambda *given: fits.append(given[1]) or fit(*given))
            fit_predictor(observations(shared[:12], speed=2.0), prior)
        whole, *folds = fits
        assert whole is prior
        assert any(known is below for known in folds)
        fits.clear()


@pytest.mark.slow
def test_the_same_readings_give_the_same_predictor(fitted):
    assert fit_predictor(observations(some_networks(40, seed=0))) == fitted


def test_too_few_readings_and_no_confidence_are_refused(fitted):
    with pytest.raises(ValueError, match="4 at least"):
        fit_predictor(observations(some_networks(3, seed=0)))
    with pytest.raises(ValueError, match="no confidence"):
        fitted.predict(some_networks(1, seed=0), confidence=1.0)
    assert fitted.predict([]) == []


def test_readings_that_are_all_alike_have_no_rank():
    (network,) = some_networks(1, seed=6)
    alike = fit_predictor([Observation(kernels=network, p5_us=10.0)] * 5)
    assert alike.held_out.rank is None
    assert alike.predict([network])[0].p5_us == pytest.approx(10.0, rel=1e-3)
