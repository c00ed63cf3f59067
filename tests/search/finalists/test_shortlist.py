"""Before long training, the best trials are measured as the verdict will measure them, and failures are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgekd.devices._protocol import MeasurePlan
from edgekd.ir.plan import Candidate
from edgekd.search.replay import replay
from edgekd.store.run import Run

LONG = 1_000_000  # images a refinement trains on: a thousand seconds


def slow_for_the_verdict(lab: Any, worst: int) -> None:
    """Candidates with ``wide`` of at least ``worst`` are twice as slow under the certificate's plan as in a trial."""

    def factor(candidate: Candidate, plan: MeasurePlan | None) -> float:
        longer = plan is not None and plan.processes == lab.plan.certify.processes
        return 2.0 if longer and candidate.arch["wide"] >= worst else 1.0

    lab.slow_when = factor


@pytest.mark.slow
def test_what_would_fail_is_not_refined(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(refine_images=LONG, finalists=1)
    slow_for_the_verdict(lab, worst=3)
    outcome = lab.search()
    run = Run.open(lab.folder)
    shortlist = run.shortlist()
    assert outcome.exit_code == 0
    assert shortlist is not None
    assert shortlist.complete
    assert [candidate.arch["wide"] < 3 for candidate in lab.refined] == [True]
    assert replay(run).same


@pytest.mark.slow
def test_where_all_fail_nothing_is_refined_and_the_nearest_are_named(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(refine_images=LONG, target={"budgets": {"latency": {"p95": "24 us"}, "size": {"file": "40 KiB"}}})
    slow_for_the_verdict(lab, worst=0)
    outcome = lab.search()
    assert outcome.exit_code == 5
    assert lab.refined == []
    assert "where latency.p95 <= 24 us is asked (fails)" in outcome.detail[1]
    assert replay(Run.open(lab.folder)).same


@pytest.mark.slow
def test_short_refinements_have_no_shortlist(lab: Any) -> None:
    lab.search()
    assert Run.open(lab.folder).shortlist() is None


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, 20])
def test_a_stopped_shortlist_goes_on(make_lab: Callable[..., Any], every: int) -> None:
    whole, stopped = make_lab(refine_images=LONG), make_lab(refine_images=LONG)
    for lab in (whole, stopped):
        slow_for_the_verdict(lab, worst=3)
    whole.search()
    stopped.search_through_stops(every)
    assert stopped.refined == whole.refined
