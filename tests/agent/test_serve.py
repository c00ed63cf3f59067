"""How want of memory is reported where a model is only loaded, or answers samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.agent import batch, serve
from edgekd.agent.child import Failed
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest, PlanRequest

JOB = JobRequest("null", "none", "model", "", 1, {})
PLAN = PlanRequest(1, 1, 1.0, 1, 1.0, 0, 0.0, False, False, False, 1.0, 1.0, 1.0, 0, 0)


class Short:
    """Stands for `Child`: at ``op`` it fails within a limit, or always."""

    op: str
    always: bool

    def __init__(self, _job: JobRequest, memory_limit_bytes: int, yard: Yard, _waiting: Any) -> None:
        self.fails = Short.always or bool(memory_limit_bytes or yard.rlimit_bytes)

    def __enter__(self) -> Short:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, op: str, _deadline_s: float, **_: Any) -> dict[str, Any]:
        if op == Short.op and self.fails:
            raise Failed("refused", "failed to prepare")
        return {"outputs": [], "placement": None}

    def open(self, deadline_s: float) -> None:
        self.ask("open", deadline_s)

    def load(self, deadline_s: float, _seed: int) -> None:
        self.ask("load", deadline_s)

    first = open


@pytest.mark.parametrize(("always", "outcome"), [(False, "out-of-memory"), (True, "refused")])
@pytest.mark.parametrize(("request_", "op"), [("load", "load"), ("run", "load"), ("run", "run")])
def test_a_refusal_that_goes_away_with_the_limit_was_want_of_memory(
    request_: str, op: str, always: bool, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batch, serve):
        monkeypatch.setattr(module, "Child", Short)
    Short.op, Short.always = op, always
    place = serve._Place({})
    place.yard = Yard(Limits())
    place.yard.rlimit_bytes = 1000
    message = {"job": JOB._asdict(), "plan": PLAN._asdict(), "inputs": [], "folder": str(tmp_path / "out")}
    answer = serve._REQUESTS[request_](message, lambda _: None, place)
    assert answer["outcome"] == outcome
    assert "failed to prepare" in answer["detail"]
