"""What a search begins with: readings of this device as it is, and priors from elsewhere for what is hardly known."""

from __future__ import annotations

import pytest

from edgekd.events import SilentEvents
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.measure.prediction.predictor import fit_prior
from edgekd.measure.tables import LatencyTable, TableRow, add_rows, tables_folder
from edgekd.search.replay import replay
from edgekd.search.space import prior_tables as prior_tables_module
from edgekd.search.space.predicted_filter import fitted
from edgekd.search.space.prior_tables import OtherDevices, prior_tables
from edgekd.store.predicted import PriorTable
from edgekd.store.run import Run
from edgekd.testing.fakes.device import fake_fingerprint
from tests.measure.prediction.device_on_paper import some_networks
from tests.search.conftest import DEPLOYMENTS, F32, INT8, LITERT, FakeAnalyser, latency_us
from tests.search.space.test_predicted_filter import TIGHT, observations

BEFORE = fake_fingerprint().but(runtimes={"litert": "2.2.0"})


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class Heard(SilentEvents):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def keep(count, backend=LITERT, precision=F32, **changes):
    rows = tuple(TableRow(kernels=n, p5_us=10.0 + at) for at, n in enumerate(some_networks(count, seed=0)))
    whole = {"device": "fake-device", "fingerprint": fake_fingerprint(), "rows": rows, **changes}
    add_rows(LatencyTable(backend=backend, precision=precision, **whole))


def test_only_deployments_with_few_readings_have_priors(make_lab, own_data):
    keep(30)
    keep(40, fingerprint=BEFORE)
    keep(10, precision=INT8)
    keep(25, precision=INT8, fingerprint=BEFORE)
    lab = make_lab(predict=True)
    run = lab.open()
    found = prior_tables(run, lab.plan, SilentEvents())
    assert {table.deployment: len(table.observations) for table in found.tables} == {
        DEPLOYMENTS[0]: 30,
        DEPLOYMENTS[1]: 10,
    }
    assert [(table.deployment, len(table.observations), table.device) for table in found.priors] == [
        (DEPLOYMENTS[1], 25, "fake-device"),
        (DEPLOYMENTS[0], 40, "fake-device"),  # of the deployments of which nothing like them is known
    ]


def test_what_other_deployments_showed_on_the_device_as_it_is_comes_before_other_devices(make_lab, own_data):
    """But after a table of the same deployment, wherever it is from."""
    keep(26, precision=Precision.DYNAMIC_INT8)
    keep(40, precision=Precision.DYNAMIC_INT8, device="other", fingerprint=BEFORE)
    lab = make_lab(predict=True)
    run = lab.open()
    (prior,) = prior_tables(run, lab.plan, SilentEvents()).priors
    assert (len(prior.observations), prior.device, prior.here) == (26, "fake-device", True)
    assert OtherDevices((prior,)).words(0, "fake-device") == "litert/xnnpack dynamic-int8"
    keep(25, device="other", fingerprint=BEFORE)
    found = prior_tables(run, lab.plan, SilentEvents()).priors
    assert [(one.deployment, one.here) for one in found if one.deployment == DEPLOYMENTS[0]] == [
        (DEPLOYMENTS[0], False)
    ]


def test_a_table_of_another_device_that_is_torn_takes_nothing_away(make_lab, own_data):
    keep(10)
    keep(30, fingerprint=BEFORE, device="other")
    (torn,) = tables_folder().glob("other-*.json")
    torn.write_text("{")
    lab, heard = make_lab(predict=True), Heard()
    found = prior_tables(lab.open(), lab.plan, heard)
    assert len(found.of(DEPLOYMENTS[0])) == 10
    assert found.priors == ()
    assert "a latency table is not used" in heard.lines[0]


@pytest.mark.slow
def test_the_order_in_which_a_prior_is_taken():
    here = {DEPLOYMENTS[0]: observations(30), DEPLOYMENTS[1]: observations(8), DEPLOYMENTS[2]: observations(7)}
    other = PriorTable(deployment=DEPLOYMENTS[3], observations=tuple(observations(26)))
    same = PriorTable(deployment=DEPLOYMENTS[1], observations=tuple(observations(25)))

    def taken(here, *tables):
        return [(one.deployment, one.prior, one.prior_table) for one in fitted(here, 100.0, OtherDevices(tables))]

    assert taken(here, other, same) == [
        (DEPLOYMENTS[0], None, None),
        (DEPLOYMENTS[1], None, 1),
        (DEPLOYMENTS[2], 0, None),
    ]
    few = {DEPLOYMENTS[1]: observations(8), DEPLOYMENTS[2]: observations(7)}
    assert taken(few, other, same) == [(DEPLOYMENTS[1], None, 1), (DEPLOYMENTS[2], None, 0)]
    assert taken(few) == [(DEPLOYMENTS[1], None, None), (DEPLOYMENTS[2], 0, None)]


@pytest.mark.slow
def test_a_search_after_an_upgrade_starts_from_what_was_known_before(make_lab, own_data, monkeypatch):
    """And a replay decides by what was found then, whatever the tables hold by now. A prior is fitted once a run."""
    fits = []
    monkeypatch.setattr(
        prior_tables_module, "fit_prior", lambda observations: fits.append(observations) or fit_prior(observations)
    )
    lab, analyser = make_lab(target=TIGHT, predict=True), FakeAnalyser()
    for deployment in DEPLOYMENTS:
        rows = []
        for arch in map(lab.plan.space.at, range(0, 72, 2)):
            plan = CompressionPlan(precision=deployment.precision)
            us = 1.3 * latency_us(Candidate(family="paper", arch=arch, plan=plan, backend=deployment.backend))
            rows.append(TableRow(kernels=analyser.kernels(arch), p5_us=us))
        keep(36, deployment.backend, deployment.precision, fingerprint=BEFORE, rows=tuple(rows))
    run = lab.open()
    run.write(prior_tables(run, lab.plan, SilentEvents()))
    lab.search()
    run = Run.open(lab.folder)
    from_before = [one for record in run.predictors() for one in record.deployments if one.prior_table is not None]
    assert from_before
    assert all(run.prior_tables().priors[one.prior_table].deployment == one.deployment for one in from_before)
    assert {fit.table for fit in run.predictors()[-1].priors} >= {one.prior_table for one in from_before}
    assert any("of fake-device in another state" in line for line in lab.lines)
    for table in tables_folder().glob("*.json"):
        table.unlink()
    assert replay(run).same
    assert len(fits) == len(run.predictors()[-1].priors)
