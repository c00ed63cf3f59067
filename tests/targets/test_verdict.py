"""Figures against limits, and what a machine that did not keep still leaves of the answer."""

from __future__ import annotations

import pytest

from edgekd.evidence import EvidenceKind, Figure
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer, judge


def figure(metric: str, value: float, spread: float | None) -> Figure:
    ends = {} if spread is None else {"low": value - spread, "high": value + spread}
    return Figure(metric=metric, value=value, unit="", kind=EvidenceKind.MEASURED, subject="d", method="m", **ends)


def target(**budgets: object) -> Target:
    fields = {"name": "t", "device": "d", "backends": ["litert/xnnpack"], "budgets": budgets}
    return Target.model_validate(fields)


@pytest.mark.parametrize(
    ("value", "share", "answer"),
    [
        (80.0, 0.01, Answer.HOLDS),  # far from the bound: a machine that moved by 1 % turns nothing
        (80.0, 0.25, Answer.UNSTABLE),
        (97.0, 0.01, Answer.UNSTABLE),
        (120.0, 0.01, Answer.FAILS),
        (104.0, 0.03, Answer.UNSTABLE),
        (100.0, 0.0, Answer.UNSTABLE),
    ],
)
def test_a_moving_machine_makes_near_answers_unsure(value: float, share: float, answer: Answer) -> None:
    verdict = judge(target(latency={"p50": "100 us"}), [figure("latency.p50", value, 2.5)])
    assert verdict.unsure(share).answer is answer


def test_lower_limits_are_unsure_the_other_way() -> None:
    verdict = judge(target(throughput="100/s"), [figure("throughput", 104.0, 2.0)])
    assert verdict.answer is Answer.HOLDS
    assert verdict.unsure(0.01).answer is Answer.HOLDS
    assert verdict.unsure(0.03).answer is Answer.UNSTABLE


def test_what_was_counted_does_not_move() -> None:
    verdict = judge(target(size={"file": "1 KiB"}), [figure("size.file", 1024.0, None)])
    assert verdict.unsure(0.5) == verdict
    assert verdict.holds


def test_memory_does_not_depend_on_the_machines_speed() -> None:
    verdict = judge(target(memory={"model": "4 MiB"}), [figure("memory.model", 3.87 * 2**20, 0.03 * 2**20)])
    assert verdict.unsure(0.04) == verdict
    assert verdict.holds
