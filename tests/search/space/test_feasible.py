"""How far from each limit: in the search by the 5th percentile times the tail."""

from __future__ import annotations

import pytest

from edgekd.evidence import EvidenceKind, Figure
from edgekd.search.space.feasible import may_hold, p5_budget_us, violations
from edgekd.store.records import DeploymentsRecord
from edgekd.targets.target import Target


def figure(metric: str, value: float) -> Figure:
    return Figure(metric=metric, value=value, unit="", kind=EvidenceKind.MEASURED, subject="d", method="m")


TAILS = {"latency.p95": 1.0, "latency.p99": 1.0}
FIGURES = (
    figure("latency.p5", 80.0),
    figure("latency.p95", 500.0),
    figure("size.file", 2048),
    figure("throughput", 50),
)


def target(**fields: object) -> Target:
    return Target.model_validate({"name": "t", "device": "d", "backends": ["litert/xnnpack"], **fields})


def test_high_quantiles_are_the_low_one_times_their_own_tail() -> None:
    limits = target(budgets={"latency": {"p95": "100 us"}})
    assert violations(limits, FIGURES, TAILS) == {"latency.p95": pytest.approx(-0.2)}
    assert violations(limits, FIGURES, {"latency.p95": 1.5, "latency.p99": 9.0}) == {"latency.p95": pytest.approx(0.2)}
    limits = target(budgets={"latency": {"p99": "100 us"}})
    assert violations(limits, FIGURES, {"latency.p95": 1.0, "latency.p99": 1.5}) == {"latency.p99": pytest.approx(0.2)}


def test_lower_limits_count_the_other_way() -> None:
    limits = target(budgets={"throughput": "100/s", "size": {"file": "1 KiB"}})
    assert violations(limits, FIGURES, TAILS) == {"throughput": pytest.approx(0.5), "size.file": pytest.approx(1.0)}


def test_accuracy_informative_and_unmeasured_limits_are_left_to_the_verdict() -> None:
    limits = target(
        budgets={"latency": {"p95": "1 us", "report": True}, "memory": {"model": "1 B"}}, accuracy={"floor": 0.99}
    )
    assert violations(limits, FIGURES, TAILS) == {}


def test_partly_delegated_is_a_violation_where_full_delegation_is_asked() -> None:
    partly = (*FIGURES, figure("delegation", 0.75))
    assert violations(target(delegation="full"), partly, TAILS) == {"delegation": pytest.approx(0.25)}
    assert violations(target(), partly, TAILS) == {}


@pytest.mark.parametrize(
    ("value", "low", "undecided"), [(110.0, 95.0, True), (110.0, 105.0, False), (170.0, 95.0, False)]
)
def test_a_miss_is_undecided_where_the_interval_holds_the_bound_and_the_value_is_near(
    value: float, low: float, undecided: bool
) -> None:
    """A busy machine's interval may reach from half the value to twice it."""
    seen = figure("latency.p50", value).but(low=low, high=400.0)
    assert may_hold(target(budgets={"latency": {"p50": "100 us"}}), [seen], TAILS) is undecided


def test_a_throughput_of_nothing_bounds_nothing() -> None:
    deployments = DeploymentsRecord.model_construct(tail=1.0, tail_p99=None, observations=(), kept=())
    assert p5_budget_us(target(budgets={"throughput": "0/s"}), deployments) is None
    assert p5_budget_us(target(budgets={"throughput": "100/s"}), deployments) is not None
