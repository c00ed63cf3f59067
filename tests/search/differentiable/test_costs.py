"""Terms of the loss: what the 5th percentile may be, what becomes a term, what is refused, what is written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.errors import MissingError
from edgekd.search.differentiable.costs import (
    block_costs_of,
    decided_model,
    latency_cost,
    recorded_block_costs,
    share_of,
)
from edgekd.search.differentiable.table import fastest_deployment, table_archs, table_observations
from edgekd.search.space.feasible import p5_budget_us
from edgekd.store.run import Run
from edgekd.students.supernet.block_costs import Cost
from edgekd.targets.target import Target


def target(**budgets: Any) -> Target:
    return Target.model_validate(
        {"name": "t", "device": "fake-device", "backends": ["litert/xnnpack"], "budgets": budgets}
    )


@pytest.fixture
def run(make_differentiable):
    lab = make_differentiable()
    lab.search()
    return Run.open(lab.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "wanted"),
    [
        ({"latency": {"p95": "100 us"}}, lambda deployments: 100 / deployments.tail),
        ({"latency": {"p50": "100 us"}}, lambda _: 100.0),  # on paper, p50 is the 5th percentile
        ({"latency": {"p95": "100 us", "p50": "20 us"}}, lambda _: 20.0),
        ({"latency": {"p5": "70 us"}}, lambda _: 70.0),  # it is the ranking quantile itself
        ({"throughput": "10000/s"}, lambda _: 100.0),
    ],
)
def test_each_limit_of_time_bounds_the_low_quantile(run, budgets, wanted):
    found = p5_budget_us(target(**budgets), run.deployments())
    assert found is not None
    assert found[0] == pytest.approx(wanted(run.deployments()), rel=0.03)


@pytest.mark.slow
def test_what_is_reported_only_bounds_nothing(run):
    assert p5_budget_us(target(latency={"p50": "1 ms", "report": True}), run.deployments()) is None
    assert p5_budget_us(target(size={"file": "1 MiB"}), run.deployments()) is None


@pytest.mark.slow
def test_costs_survive_being_written_down(run):
    model, axes = run.latency_model(), run.plan().axes
    block_costs = block_costs_of(model.block_costs, axes)
    assert recorded_block_costs(block_costs) == model.block_costs
    cost = latency_cost(model, axes)
    for trial in run.trials():
        arch = trial.candidate.arch
        assert (
            Cost.counted(block_costs, "macs").of(arch, axes) == arch["depth"] * arch["width"] ** 2 * arch["wide"] * 100
        )
        share = share_of(model, model.terms[0], axes)
        assert share.of(arch, axes) == pytest.approx(cost.of(arch, axes) / model.budget_us)


@pytest.mark.slow
def test_a_term_that_was_refused_costs_nothing(run):
    model = run.latency_model()
    refused = model.terms[1].but(bound=None)
    assert share_of(model, refused, run.plan().axes) is None


@pytest.mark.slow
def test_three_archs_are_no_table(run):
    model, deployments, plan = run.latency_model(), run.deployments(), run.plan()
    measured = table_observations(model.deployment, (), run.latencies())[:3]
    with pytest.raises(MissingError, match="only 3 archs"):
        decided_model(run.header.target, plan, deployments, model.deployment, model.block_costs, measured, (), None, "")


@pytest.mark.slow
def test_the_table_is_spread_and_drawn_the_same_way_each_time(run):
    plan, features = run.plan(), run.features()
    left = features.indices
    archs = table_archs(plan, features, left, 5)
    assert archs == table_archs(plan, features, left, 5)
    assert len(set(archs)) == len(archs) == 12
    assert archs[:6] == table_archs(plan, features, left, 6)[:6]  # the widest gaps know no seed
    assert archs != table_archs(plan, features, left, 6)
    assert len(table_archs(plan, features, left[:3], 5)) == 3


@pytest.mark.slow
def test_the_deployment_is_the_fastest_on_the_reference_archs(run):
    deployments = run.deployments()
    lows = {
        deployment: np.mean(
            [np.log(r.p5_us.value) for r in deployments.observations if r.deployment == deployment and r.p5_us]
        )
        for deployment in deployments.kept
    }
    assert fastest_deployment(deployments) == min(lows, key=lambda deployment: lows[deployment])
