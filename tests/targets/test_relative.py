"""Limits relative to one's own model, and what they come to."""

from __future__ import annotations

import pytest

from edgekd.errors import ConfigurationError
from edgekd.targets.relative import floored, require_absolute, resolved
from edgekd.targets.target import Target

OWN = {"latency.p50": 2000.0, "latency.p5": 1900.0, "size.file": 8 * 1024.0**2}


def target(**fields: object) -> Target:
    return Target.model_validate({"name": "t", "device": "d", "backends": ["litert/xnnpack"], **fields})


def test_a_share_of_own_becomes_a_plain_budget() -> None:
    asked = target(budgets={"latency": {"p50": "60 % of own", "p95": "5 ms"}, "size": {"file": "25% of own"}})
    assert [limit.metric for limit in asked.limits] == ["latency.p95"]
    assert asked.written == ("latency.p95 <= 5 ms", "latency.p50 <= 60 % of own", "size.file <= 25 % of own")
    found = {limit.metric: limit.bound for limit in resolved(asked, 0.9, OWN).limits}
    assert found == {"latency.p50": pytest.approx(1200.0), "latency.p95": 5000.0, "size.file": 2 * 1024.0**2}


def test_a_drop_is_points_below_own() -> None:
    asked = target(accuracy={"drop": "2 %"})
    assert asked.written == ("accuracy >= own - 2 points",)
    (limit,) = resolved(asked, 0.942, OWN).limits
    assert (limit.metric, limit.bound, limit.upper) == ("accuracy", 0.922, False)
    assert floored(target(accuracy={"floor": 0.8}), 0.942).limits[0].bound == 0.8


def test_it_is_read_back_as_it_was_written() -> None:
    asked = target(budgets={"latency": {"p5": "37.5 % of own"}}, accuracy={"drop": "1.5 points"})
    assert Target.model_validate_json(asked.model_dump_json()) == asked
    assert Target.model_validate_json(target(accuracy={"floor": 0.8}).model_dump_json()).accuracy.floor == 0.8


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"budgets": {"latency": {"p50": "60 %"}}}, "no such unit `%`"),
        ({"budgets": {"latency": {"p50": "half of own"}}}, "Write for example 60 % of own"),
        ({"budgets": {"latency": {"first": "60 % of own"}}}, "no such unit"),
        ({"accuracy": {"floor": 0.9, "drop": "2 %"}}, "`floor`"),
        ({"accuracy": {}}, "`drop`"),
    ],
)
def test_mistakes_are_answered(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        target(**fields)


def test_without_a_model_of_ones_own_it_is_refused() -> None:
    require_absolute(target(budgets={"latency": {"p50": "1 ms"}}))
    with pytest.raises(ConfigurationError, match="edgekd compress"):
        require_absolute(target(budgets={"latency": {"p50": "60 % of own"}}))


def test_a_model_that_ran_nowhere_has_nothing_to_take_a_share_of() -> None:
    with pytest.raises(ConfigurationError, match="ran on no backend"):
        resolved(target(budgets={"latency": {"p50": "60 % of own"}}), 0.9, {})
    with pytest.raises(ConfigurationError, match="p99 is to be a share of one's own model's, which has no such figure"):
        resolved(target(budgets={"latency": {"p99": "60 % of own"}}), 0.9, OWN)
