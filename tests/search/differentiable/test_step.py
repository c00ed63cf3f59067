"""A search whose choice is trained, from the table to a certified finalist: budgets, resumption, replay, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import ConfigurationError, Interrupted
from edgekd.ir.space import Arch
from edgekd.search.differentiable.costs import latency_cost
from edgekd.search.replay import replay
from edgekd.search.search import spent_before
from edgekd.search.space.feasible import p5_us
from edgekd.search.trials.whole_model import affordable_shares
from edgekd.store.run import Run


def target(**budgets: Any) -> dict[str, Any]:
    return {"budgets": budgets, "backends": ["litert/xnnpack"]}


def latencies_of(run: Run) -> list[float]:
    return [low for trial in run.trials() if (low := p5_us(trial.figures)) is not None]


@pytest.mark.slow
def test_it_comes_near_the_budget_and_keeps_it(make_differentiable):
    lab = make_differentiable(target=target(latency={"p50": "120 us"}))
    assert lab.search().exit_code == 0
    run = Run.open(lab.folder)
    assert len(run.trials()) == 4
    assert all(trial.outcome == "measured" for trial in run.trials())
    assert max(latencies_of(run)) > 0.75 * 120  # it is spent
    supernet = run.supernet()
    assert supernet is not None
    assert supernet.points[0].held_out_loss is None  # the warm-up
    assert supernet.points[-1].open_bits < supernet.points[0].open_bits
    model = run.latency_model()
    assert model is not None
    assert model.error_worst < 0.01  # on paper, latency is additive
    cost = latency_cost(model, lab.plan.axes)
    trial = run.trials()[0]
    assert cost.of(trial.candidate.arch, lab.plan.axes) == pytest.approx(p5_us(trial.figures), rel=0.02)


@pytest.mark.slow
def test_every_decision_is_reproduced(make_differentiable):
    lab = make_differentiable()
    lab.search()
    report = replay(Run.open(lab.folder))
    assert report.same, report.lines()
    counts = {step.name: step.decisions for step in report.steps}
    assert counts["latencies"] >= 1
    assert counts["model"] == counts["nearby"] == 1
    assert counts["proposals"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("what", ["reading", "logits", "order"])
def test_a_changed_record_shows(make_differentiable, what):
    lab = make_differentiable()
    lab.search()
    run = Run.open(lab.folder)
    supernet, batch = run.supernet(), run.latencies()[0]
    assert supernet is not None
    if what == "reading":
        observation = batch.observations[0]
        wrong = observation.but(p5_us=observation.p5_us.but(value=3 * observation.p5_us.value))
        run.write(batch.but(observations=(wrong, *batch.observations[1:])))
    elif what == "logits":
        run.write(supernet.but(logits={axis: row[::-1] for axis, row in supernet.logits.items()}))
    else:
        run.write(supernet.but(order=supernet.order[::-1]))
    differ = {step.name for step in replay(run).steps if step.differ}
    assert differ & {"model", "nearby"}


@pytest.mark.slow
def test_two_targets_two_students(make_differentiable):
    chosen = {}
    for budget in (60, 400):
        lab = make_differentiable(target=target(latency={"p50": f"{budget} us"}))
        lab.search()
        run = Run.open(lab.folder)
        chosen[budget] = next(f.candidate.arch for f in run.finalists() if f.chosen)
        assert max(latencies_of(run)) <= budget
        assert max(latencies_of(run)) > 0.7 * budget
    assert chosen[60] != chosen[400]


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, 11])
def test_stopped_again_and_again_it_ends_alike(make_differentiable, every):
    whole, stopped = make_differentiable(), make_differentiable()
    whole.search()
    stopped.search_through_stops(every)
    one, other = Run.open(whole.folder), Run.open(stopped.folder)
    timeless = [
        run.supernet().but(ended_s=0, points=[p.but(images_per_s=0) for p in run.supernet().points])
        for run in (one, other)
    ]
    assert timeless[0] == timeless[1]
    assert [t.candidate for t in one.trials()] == [t.candidate for t in other.trials()]
    assert [b.number for b in one.latencies()] == [b.number for b in other.latencies()]
    assert stopped.estimated == whole.estimated  # nothing is trained twice
    assert replay(other).same


def test_without_a_budget_of_time_there_is_nothing_to_train_for(make_differentiable):
    lab = make_differentiable(target=target(size={"file": "40 KiB"}))
    with pytest.raises(ConfigurationError, match="bounds no latency"):
        lab.search()


@pytest.mark.slow
def test_size_is_a_term_and_energy_that_binds_nothing_is_none(make_differentiable):
    budgets = {
        "latency": {"p95": "120 us"},
        "size": {"file": "40 KiB"},
        "energy": {"per_inference": "1 mJ", "report": True},
    }
    lab = make_differentiable(target=target(**budgets))
    lab.search()
    model = Run.open(lab.folder).latency_model()
    terms = {term.name: term for term in model.terms}
    assert terms["size"].bound == 40 * 1024
    assert terms["energy"].bound is None
    assert "only a call's energy can be one, as a budget that binds" in terms["energy"].detail
    assert terms["bytes"].bound == pytest.approx(1e9 * terms["latency"].bound / 1e6)
    assert terms["latency"].kind.value == "predicted"


def microjoules(candidate: Any) -> float:
    """Wide kernels draw much more than they take time."""
    arch = candidate.arch
    return 1e-6 * (2.0 + arch["depth"] * arch["width"] ** 2 * arch["wide"] ** 2 / 400)


@pytest.mark.slow
def test_energy_measured_in_the_table_is_a_term_and_binds(make_differentiable):
    expected = {}
    for bound in (20, 2000):
        budgets = {"latency": {"p50": "400 us"}, "energy": {"per_inference": f"{bound} uJ"}}
        lab = make_differentiable(target=target(**budgets))
        lab.joules = microjoules
        lab.plan = lab.plan.but(measure=lab.plan.measure.but(energy=True))
        lab.search()
        run = Run.open(lab.folder)
        model, supernet = run.latency_model(), run.supernet()
        (term,) = [term for term in model.terms if term.name == "energy"]
        assert term.bound == pytest.approx(bound * 1e-6)
        assert (term.kind.value, model.energy.kind.value) == ("predicted", "measured")
        assert "held out, it errs by" in term.detail
        expected[bound] = supernet.points[-1].shares["energy"] * bound
        assert replay(run).same
    assert expected[20] < 1.3 * 20 < expected[2000]  # the loose one is spent on time, far beyond the tight one


@pytest.mark.slow
def test_energy_nobody_could_read_is_reported(make_differentiable):
    budgets = {"latency": {"p50": "400 us"}, "energy": {"per_inference": "20 uJ"}}
    lab = make_differentiable(target=target(**budgets))
    lab.search()
    model = Run.open(lab.folder).latency_model()
    (term,) = [term for term in model.terms if term.name == "energy"]
    assert (term.bound, model.energy) == (None, None)
    assert "energy of 0 archs was measured on" in term.detail


@pytest.mark.slow
def test_elsewhere_bandwidth_is_not_measured(make_differentiable):
    lab = make_differentiable()
    lab.bandwidth = None
    lab.search()
    model = Run.open(lab.folder).latency_model()
    bytes_term = next(term for term in model.terms if term.name == "bytes")
    assert (model.bandwidth, bytes_term.bound) == (None, None)
    assert "nothing measures" in bytes_term.detail


@pytest.mark.slow
def test_the_runs_clock_counts_every_step(make_differentiable):
    lab = make_differentiable()
    lab.stop_after = 60
    with pytest.raises(Interrupted):
        lab.search()
    run = Run.open(lab.folder)
    assert run.latency_model() is not None
    assert not run.trials()
    assert spent_before(run) >= run.latencies()[-1].ended_s > 0.0


@pytest.mark.slow
def test_a_model_of_ones_own_that_misses_elsewhere_is_no_obstacle(make_differentiable):
    """Proposals are for one deployment; the largest arch, a reference arch, was measured on all."""
    whole = Arch.of({"depth": 3, "width": 64, "wide": 4})
    lab = make_differentiable(original=whole, skips_missed=True, target={"budgets": {"latency": {"p95": "3 ms"}}})
    assert lab.search().exit_code == 0
    run = Run.open(lab.folder)
    plan, deployments = run.plan(), run.deployments()
    assert set(affordable_shares(run, plan, deployments, (), 0)) - {run.latency_model().deployment}
    assert replay(run).same
