"""What the predictor holds to be too slow is not tried; nothing else changes, and a replay decides alike."""

from __future__ import annotations

import pytest

from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.measure.prediction.predictor import LatencyPredictor
from edgekd.search.replay import replay
from edgekd.search.space.predicted_filter import PredictedFilter, fit_due, fitted
from edgekd.search.space.prior_tables import OtherDevices
from edgekd.store.predicted import Observation, PredictorsRecord, PriorTable, PriorTablesRecord
from edgekd.store.records import Deployment
from edgekd.store.run import Run
from tests.measure.prediction.device_on_paper import latency_us, some_networks
from tests.search.conftest import DEPLOYMENTS, F32, LITERT, FakeAnalyser, size_bytes

TIGHT = {"budgets": {"latency": {"p95": "60 us"}}}
SMALL = {"budgets": {"memory": {"model": "30 KiB"}}}
BOTH = {"budgets": {**TIGHT["budgets"], **SMALL["budgets"]}}


def over_budget(run: Run) -> int:
    return sum(trial.outcome == "over-budget" for trial in run.trials())


@pytest.fixture
def searched(make_lab):
    """The same search without and with the predictor."""

    def search(predict: bool, **changes):
        lab = make_lab(target=TIGHT, predict=predict, **changes)
        lab.search()
        return Run.open(lab.folder)

    return search


@pytest.mark.slow
def test_fewer_trials_are_spent_on_what_is_too_slow(searched):
    plain, predicted = searched(False), searched(True)
    assert len(plain.trials()) == len(predicted.trials()) == 24
    assert plain.predictors() == ()
    assert predicted.predictors()
    assert over_budget(predicted) < over_budget(plain) / 2
    best = [max(f.accuracy.value for f in run.finalists() if f.chosen) for run in (plain, predicted)]
    assert best[1] >= best[0]


@pytest.mark.slow
def test_each_fit_says_its_error_and_what_it_removed(searched):
    records = searched(True).predictors()
    assert [record.number for record in records] == list(range(len(records)))
    for record in records:
        for one in record.deployments:
            assert one.samples == one.held_out.samples >= 6
            assert 0.0 <= one.held_out.median <= one.held_out.p95 <= one.held_out.worst
            assert 30.0 < one.bound_us <= 60.0
    assert any(one.removed for record in records for one in record.deployments)


@pytest.mark.slow
def test_a_replay_decides_alike(searched):
    report = replay(searched(True))
    assert report.same, report.lines()


@pytest.mark.slow
def test_stopped_and_resumed_it_tries_the_same(make_lab):
    whole, stopped = (make_lab(target=TIGHT, predict=True) for _ in range(2))
    whole.search()
    stopped.search_through_stops(3)
    one, other = (Run.open(lab.folder) for lab in (whole, stopped))
    assert [trial.candidate for trial in one.trials()] == [trial.candidate for trial in other.trials()]
    assert [[a.removed for a in r.deployments] for r in one.predictors()] == [
        [a.removed for a in r.deployments] for r in other.predictors()
    ]


@pytest.mark.slow
def test_what_earlier_work_measured_is_known_from_the_first_trial_on(make_lab):
    before = make_lab(target=TIGHT, predict=True)
    before.search()
    run = Run.open(before.folder)
    deployment = Deployment(backend=LITERT, precision=F32)
    analyser, rows = FakeAnalyser(), {}
    for trial in run.trials():
        low = next((f.value for f in trial.figures if f.metric == "latency.p5"), None)
        if Deployment.of(trial.candidate) == deployment and low is not None:
            rows[analyser.kernels(trial.candidate.arch)] = low
    lab = make_lab(target=TIGHT, predict=True)
    again = lab.open()
    table = PriorTable(
        deployment=deployment, observations=tuple(Observation(kernels=k, p5_us=low) for k, low in rows.items())
    )
    again.write(PriorTablesRecord(tables=(table,)))
    lab.search()
    first = Run.open(lab.folder).predictors()[0]
    assert first.batch == 0
    (mine,) = [one for one in first.deployments if one.deployment == deployment]
    assert mine.samples >= len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("target", [SMALL, BOTH])
def test_fewer_trials_are_spent_on_what_takes_too_much_memory(make_lab, target):
    plain, predicted = (make_lab(target=target, predict=predict) for predict in (False, True))
    for lab in (plain, predicted):
        lab.search()
    runs = [Run.open(lab.folder) for lab in (plain, predicted)]
    assert over_budget(runs[1]) < over_budget(runs[0])
    records = runs[1].predictors()
    for trial in runs[1].trials():
        fitted_before = {m.deployment for record in records if record.batch <= trial.batch for m in record.memories}
        if Deployment.of(trial.candidate) in fitted_before:
            assert 2 * size_bytes(trial.candidate) <= 30 * 1024
    assert all(bool(record.deployments) == (target is BOTH) for record in records)
    memories = [one for record in records for one in record.memories]
    assert {one.bound_bytes for one in memories} == {30 * 1024}
    assert all(one.fit.samples >= 6 for one in memories)
    if target is SMALL:  # else time has taken all that is large before
        assert all(one.removed > 0 for one in memories)
    assert replay(runs[1]).same


@pytest.mark.slow
def test_no_arch_is_removed_that_would_have_kept_to_the_memory(make_lab):
    """On paper memory is twice the file, and so exactly what is counted: the filter must be as exact."""
    lab = make_lab(target=SMALL, predict=True)
    lab.search()
    run = Run.open(lab.folder)
    last, (plan, features) = run.predictors()[-1], (run.plan(), run.features())
    for one in last.memories:
        archs = [plan.space.at(index) for index in features.indices]
        plans = CompressionPlan(precision=one.deployment.precision)
        files = [Candidate(family="paper", arch=arch, plan=plans, backend=one.deployment.backend) for arch in archs]
        assert one.removed == sum(2 * size_bytes(each) > 30 * 1024 for each in files)


@pytest.mark.slow
def test_without_a_limit_of_time_or_memory_nothing_is_fitted(make_lab):
    lab = make_lab(target={"budgets": {"size": {"file": "40 KiB"}}}, predict=True)
    lab.search()
    assert Run.open(lab.folder).predictors() == ()


@pytest.mark.slow
def test_what_is_left_is_used_up_and_the_search_goes_on(make_lab, monkeypatch):
    """A prediction may save trials, but not end a search: where all it left was tried, the others are."""
    monkeypatch.setattr(
        PredictedFilter,
        "left",
        lambda self, *fits: {deployment: indices[:1] for deployment, indices in self.allowed.items()},
    )
    lab = make_lab(target=TIGHT, predict=True)
    lab.search()
    run = Run.open(lab.folder)
    assert run.predictors()
    assert len(run.trials()) == 24
    assert replay(run).same


@pytest.mark.slow
def test_no_arch_is_left_out_for_kernels_of_which_nothing_is_known(make_lab, monkeypatch):
    monkeypatch.setattr(LatencyPredictor, "unseen", lambda self, networks: [("depthwise",)] * len(networks))
    lab = make_lab(target=TIGHT, predict=True)
    lab.search()
    fits = [one for record in Run.open(lab.folder).predictors() for one in record.deployments]
    assert fits
    assert not any(one.removed for one in fits)


@pytest.mark.slow
def test_a_filter_that_leaves_nothing_is_no_filter(make_lab):
    lab = make_lab(target={"budgets": {"latency": {"p95": "1 us"}}}, predict=True)
    assert lab.search().exit_code == 5
    run = Run.open(lab.folder)
    assert len(run.trials()) == 24
    assert replay(run).same


@pytest.mark.slow
def test_a_limit_of_time_that_leaves_nothing_leaves_that_of_memory_in_force(make_lab):
    lab = make_lab(target={"budgets": {"latency": {"p95": "1 us"}, **SMALL["budgets"]}}, predict=True)
    lab.search()
    run = Run.open(lab.folder)
    whole = [record for record in run.predictors() if len(record.deployments) == len(run.deployments().kept)]
    assert whole
    assert not any(one.removed for record in whole for one in record.deployments)
    assert all(one.removed for record in whole for one in record.memories)
    late = [trial for trial in run.trials() if trial.batch >= whole[0].batch]
    assert late
    assert all(2 * size_bytes(trial.candidate) <= 30 * 1024 for trial in late)
    assert replay(run).same


def observations(count: int) -> list[Observation]:
    return [
        Observation(kernels=network, p5_us=latency_us(network, seed=number))
        for number, network in enumerate(some_networks(count, seed=0))
    ]


@pytest.mark.parametrize(("before", "now", "due"), [(None, 5, False), (None, 6, True), (9, 11, False), (9, 12, True)])
def test_a_fit_is_due_where_readings_have_grown(before, now, due):
    last = None
    if before is not None:
        deployments = fitted({DEPLOYMENTS[0]: observations(before)}, 100.0, OtherDevices())
        last = PredictorsRecord(number=0, batch=0, deployments=deployments, seconds=0.0, ended_s=0.0)
    assert fit_due({DEPLOYMENTS[0]: observations(now)}, last) is due


@pytest.mark.slow
def test_a_deployment_with_few_readings_has_the_fullest_as_its_prior():
    made = fitted(
        {DEPLOYMENTS[0]: observations(8), DEPLOYMENTS[1]: observations(30), DEPLOYMENTS[2]: observations(3)},
        100.0,
        OtherDevices(),
    )
    assert [(one.deployment, one.prior) for one in made] == [(DEPLOYMENTS[1], None), (DEPLOYMENTS[0], 0)]
