"""Who runs when: recorded from workers that only note what they are asked."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.agent import batch
from edgekd.agent.child import Failed, Killed, NotStarted
from edgekd.agent.cooling import Cooling
from edgekd.agent.faults import Fault
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest, PlanRequest

PLAN = PlanRequest(
    processes=2, rounds=4, round_ms=1.0, min_calls=1, warmup_ms=1.0, busy=0, rate_hz=0.0, sentinel=True,
    profile=False, energy=False, energy_window_s=1.0, load_deadline_s=1.0, call_deadline_s=1.0,
    memory_limit_bytes=0, seed=0,
)  # fmt: skip


class Noted:
    """Stands for `Child`. ``fails`` maps (path, request) to the failure, which strikes each time."""

    log: list[tuple[str, str]]
    alive: int
    most_alive: int
    fails: dict[tuple[str, str], Failed]
    once: set[tuple[str, str]]  # of those, what strikes the first time only
    crowded: dict[tuple[str, str], Failed]  # the same, which strikes beside others only
    last: list[bool]  # whether a round of `a` was said to be its last
    operators: list[dict[str, Any]]

    def __init__(self, job: JobRequest, memory_limit_bytes: int, yard: Yard, waiting: Any) -> None:
        self.path, self.job, self.first_s = job.path or "sentinel", job, 1e-4
        self.limited, self.open_now = bool(memory_limit_bytes or yard.rlimit_bytes), True
        Noted.alive += 1
        Noted.most_alive = max(Noted.most_alive, Noted.alive)

    def __enter__(self) -> Noted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, op: str, deadline_s: float, **fields: Any) -> dict[str, Any]:
        Noted.log.append((self.path, op))
        if (self.path, op) in Noted.crowded and Noted.alive > 2:  # it and the sentinel
            raise Noted.crowded[self.path, op]
        failure = Noted.fails.get((self.path, op))
        if failure is not None and (self.limited or failure.outcome != "refused"):
            if (self.path, op) in Noted.once:
                del Noted.fails[self.path, op]
            raise failure
        if self.path == "a" and op == "round":
            Noted.last.append(fields["last"])
        return {"placement": None, "round_p5_us": [1.0], "operators": Noted.operators}

    def open(self, deadline_s: float) -> None:
        self.ask("open", deadline_s)

    def load(self, deadline_s: float, seed: int) -> None:
        self.ask("load", deadline_s)

    def first(self, deadline_s: float) -> None:
        self.ask("first", deadline_s)

    def close(self) -> None:
        Noted.alive -= self.open_now
        self.open_now = False


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> type[Noted]:
    Noted.log, Noted.alive, Noted.most_alive, Noted.fails = [], 0, 0, {}
    Noted.last, Noted.operators, Noted.crowded, Noted.once = [], [], {}, set()
    monkeypatch.setattr(batch, "Child", Noted)
    return Noted


def jobs(*names: str) -> list[JobRequest]:
    return [JobRequest("null", "none", name, "", 1, {}) for name in names]


def measure(names: str, plan: PlanRequest = PLAN, cooling: Cooling = Cooling()) -> Any:
    done = batch.RunningBatch(jobs(*names), plan, Yard(Limits()), "no meter", cooling, lambda: None, lambda _: None)
    done.run()
    return done


def test_a_round_each_in_turn() -> None:
    measure("abc")
    turns = [path for path, op in Noted.log if op == "round"]
    assert len(turns) == PLAN.processes * PLAN.rounds * 4
    for start in range(0, len(turns), 4):
        assert sorted(turns[start : start + 4]) == ["a", "b", "c", "sentinel"]
    assert len({turns[start] for start in range(0, 16, 4)}) == 4  # nobody is always first


def test_generations_have_fresh_processes_in_another_order() -> None:
    measure("abcdef")
    opened = [path for path, op in Noted.log if op == "open" and path != "sentinel"]
    first, second = opened[:6], opened[6:]
    assert sorted(first) == sorted(second) == list("abcdef")
    assert first != second
    Noted.log.clear()
    measure("abcdef")
    assert [path for path, op in Noted.log if op == "open" and path != "sentinel"] == opened  # by seed


def test_groups_are_even_and_each_has_the_sentinel() -> None:
    result = measure("abcdefghij", PLAN._replace(processes=1))
    assert Noted.most_alive == 6
    assert len(result.sentinel) == 2
    assert Noted.alive == 0


def test_a_failure_ends_that_job_alone() -> None:
    Noted.fails[("b", "round")] = Failed("crashed", "killed by SIGSEGV")
    done = measure("abc").results
    assert [len(result.samples) for result in done] == [2, 0, 2]
    assert done[1].failed.outcome == "crashed"
    assert sum(entry == ("b", "round") for entry in Noted.log) == 1
    assert sum(entry == ("b", "open") for entry in Noted.log) == 1
    assert Noted.alive == 0


def test_a_process_hears_which_round_is_its_last() -> None:
    measure("ab")
    assert Noted.last == ([False] * (PLAN.rounds - 1) + [True]) * PLAN.processes


def test_missing_operator_times_have_their_reason() -> None:
    plan = PLAN._replace(profile=True)
    Noted.fails[("b", "profile")] = Failed("crashed", "killed by SIGSEGV")
    refused, failed = measure("ab", plan).results
    assert refused.failed is failed.failed is None
    assert (refused.operators, failed.operators) == ([], [])
    assert "doesn't tell" in refused.operators_detail
    assert failed.operators_detail == "crashed: killed by SIGSEGV"
    Noted.operators = [{"name": "c"}]
    profiled = measure("a", plan).results[0]
    assert (profiled.operators, profiled.operators_detail) == ([{"name": "c"}], "")
    assert measure("a").results[0].operators_detail == ""  # nobody asked


@pytest.mark.parametrize(("limit", "outcome"), [(0, None), (1000, "out-of-memory")])
def test_a_refusal_that_goes_away_with_the_limit_was_want_of_memory(limit: int, outcome: str | None) -> None:
    Noted.fails[("a", "load")] = Failed("refused", "failed to prepare")
    failed = measure("a", PLAN._replace(memory_limit_bytes=limit)).results[0].failed
    assert (failed and failed.outcome) == outcome


def test_a_broken_sentinel_ends_the_batch_and_its_processes() -> None:
    Noted.fails[("sentinel", "round")] = Failed("crashed", "gone")
    with pytest.raises(RuntimeError, match="sentinel"):
        measure("ab")
    assert Noted.alive == 0


KILLED = Killed("crashed", "killed by SIGKILL while asked to run a round")  # as Android does


@pytest.mark.parametrize("short", [Failed("out-of-memory", "killed by the kernel"), KILLED])
def test_a_job_that_finds_no_memory_beside_others_is_measured_alone(short: Failed) -> None:
    Noted.crowded["b", "round"] = short
    done = measure("abc")
    assert [result.failed for result in done.results] == [None] * 3
    assert [len(result.samples) for result in done.results] == [2, 2, 2]
    # after the group of three, and beside it from the second generation on: each has the sentinel's own row
    assert [result.beside for result in done.results] == [[0, 2], [1, 3], [0, 2]]
    assert sum(entry == ("b", "open") for entry in Noted.log) == 3


def test_a_job_that_finds_none_alone_either_has_none() -> None:
    Noted.fails["b", "round"] = Failed("out-of-memory", "killed by the kernel")
    done = measure("abc")
    assert [bool(result.failed) for result in done.results] == [False, True, False]
    assert sum(entry == ("b", "open") for entry in Noted.log) == 2
    Noted.log.clear()
    measure("abc", PLAN._replace(memory_limit_bytes=1000))  # it may be the board that was too small, and not the limit
    assert sum(entry == ("b", "open") for entry in Noted.log) == 2


def test_a_job_that_was_killed_once_is_measured_again() -> None:
    Noted.fails["a", "round"] = KILLED
    Noted.once.add(("a", "round"))
    (result,) = measure("a").results
    assert (result.failed, len(result.samples)) == (None, 2)
    Noted.fails["a", "round"] = KILLED
    Noted.once.clear()
    Noted.log.clear()
    (result,) = measure("a").results
    assert result.failed is KILLED
    assert sum(entry == ("a", "open") for entry in Noted.log) == 2


def test_a_process_that_finds_no_room_alone_either_says_nothing_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unstarted(Noted):
        def __init__(self, job: JobRequest, *more: Any) -> None:
            Noted.log.append((job.path, "start"))
            if job.path == "b":
                raise NotStarted("out-of-memory", "no process can be started: Cannot allocate memory")
            super().__init__(job, *more)

    monkeypatch.setattr(batch, "Child", Unstarted)
    with pytest.raises(Fault, match="no process can be started: Cannot allocate memory"):
        measure("ab")
    assert sum(entry == ("b", "start") for entry in Noted.log) == 2
    assert Noted.alive == 0


def test_a_job_with_a_limit_is_measured_alone_where_the_board_is_too_small_for_all() -> None:
    Noted.crowded["b", "round"] = Failed("out-of-memory", "killed by the kernel")
    done = measure("abc", PLAN._replace(memory_limit_bytes=1000))
    assert [result.failed for result in done.results] == [None] * 3


@pytest.mark.parametrize("op", ["open", "round", "finish"])
def test_jobs_beside_which_the_sentinel_finds_no_memory_are_measured_alone(op: str) -> None:
    Noted.crowded["sentinel", op] = Failed("out-of-memory", "killed by the kernel")
    Noted.fails["c", "load"] = Failed("crashed", "killed by SIGSEGV")
    done = measure("abc")
    assert [result.failed and result.failed.outcome for result in done.results] == [None, None, "crashed"]
    assert [len(result.samples) for result in done.results] == [2, 2, 0]  # those that had finished count once
    assert sorted(row for result in done.results for row in result.beside) == [0, 1, 2, 3]
    assert len(done.sentinel) == 4
    assert sum(entry == ("c", "open") for entry in Noted.log) == 1
    assert Noted.alive == 0


def test_what_was_measured_before_the_sentinel_found_no_memory_is_kept() -> None:
    def step(_: str) -> None:
        Noted.crowded["sentinel", "round"] = KILLED

    done = batch.RunningBatch(jobs(*"abc"), PLAN, Yard(Limits()), "no meter", Cooling(), lambda: None, step)
    done.run()
    assert [result.failed for result in done.results] == [None] * 3
    assert [len(result.samples) for result in done.results] == [2, 2, 2]
    assert [result.beside[0] for result in done.results] == [0, 0, 0]
    assert sorted(result.beside[1] for result in done.results) == [1, 2, 3]


def test_a_sentinel_that_finds_no_memory_beside_one_ends_the_batch() -> None:
    Noted.fails["sentinel", "round"] = Failed("out-of-memory", "killed by the kernel")
    with pytest.raises(RuntimeError, match="the sentinel failed: killed by the kernel"):
        measure("ab")
    assert Noted.alive == 0


def test_a_profile_whose_process_cannot_be_started_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unstarted(Noted):
        def __init__(self, job: JobRequest, *more: Any) -> None:
            if ("a", "finish") in Noted.log:
                raise Failed("out-of-memory", "no process can be started")
            super().__init__(job, *more)

    monkeypatch.setattr(batch, "Child", Unstarted)
    (result,) = measure("a", PLAN._replace(processes=1, profile=True)).results
    assert (result.failed, result.operators_detail) == (None, "out-of-memory: no process can be started")


def test_a_batch_that_began_warm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.agent.cooling._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(batch, "temperature_c", lambda: 80.0)
    assert measure("a", cooling=Cooling(45.0, 0.01)).not_cool == "not cool: 80 C after 0.01 s"
    monkeypatch.setattr(batch, "temperature_c", lambda: 40.0)
    assert measure("a", cooling=Cooling(45.0, 0.01)).not_cool == ""
