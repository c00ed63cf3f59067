from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgekd.evidence import find_figure
from edgekd.report.facts import gather
from edgekd.report.front import front_points
from edgekd.report.operators import operator_rows

Write = Callable[..., Any]


@pytest.mark.parametrize(
    ("budgets", "metric"),
    [
        ({"latency": {"p99": "1 ms", "load": "1 s"}}, "latency.p99"),
        ({"latency": {"first": "1 ms"}}, "latency.p5"),
        ({}, "latency.p5"),
    ],
)
def test_the_front_shows_the_latency_that_is_asked_for(write: Write, budgets: dict[str, Any], metric: str) -> None:
    assert gather(write(budgets=budgets).run.folder).latency_metric == metric


def test_points_are_the_records_own_figures(write: Write) -> None:
    written = write()
    written.whole()
    facts = gather(written.run.folder)
    points = front_points(facts)
    assert [point.role for point in points] == ["chosen", "trial", "trial", "trial"]
    for point in points[1:]:
        trial = facts.trials[int(point.name.removeprefix("trial "))]
        assert point.latency == find_figure(trial.figures, "latency.p95")
        assert point.accuracy == trial.accuracy


def test_operators_are_grouped_and_shares_make_one(write: Write) -> None:
    finalist = write().finalist()
    rows = operator_rows(finalist.measurement.operators)
    assert [(row.kind, row.count, row.time_us) for row in rows] == [("CONV_2D", 2, 40.0), ("FULLY_CONNECTED", 1, 10.0)]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert operator_rows(()) == []
