"""A batch of jobs measured together: fresh processes, interleaved rounds, a sentinel beside them.

Process *k* of every job lives at the same time as process *k* of the others, and exactly one of them runs: a round
each, in turn. Slow drift of the machine then falls on all jobs alike. The next generation has fresh processes in
another order.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Set, TypeVar, Union

from edgekd.agent import energy
from edgekd.agent.busy import busy_cores
from edgekd.agent.child import Child, Failed, Killed, NotStarted
from edgekd.agent.cooling import Cooling, temperature_c
from edgekd.agent.faults import Fault
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest, PlanRequest
from edgekd.agent.meters import Meter, MeterError

__all__ = ["RunningBatch", "at_most_twice", "explained", "try_loading"]

SENTINEL = JobRequest("sentinel", "none", "", "", threads=1, shapes={})
MOST_ALIVE = 8
_PROFILED_CALLS = 20
_SUM_UP_DEADLINE_S = 30.0


_Answer = TypeVar("_Answer")


class Result:
    """Result of a job."""

    def __init__(self) -> None:
        self.samples: List[Dict[str, Any]] = []
        self.beside: List[int] = []  # which of the sentinel's processes ran beside each of them
        self.failed: Optional[Failed] = None
        self.placement: Optional[Dict[str, Any]] = None
        self.operators: List[Dict[str, Any]] = []
        self.operators_detail = ""  # why there are none
        self.energy: List[Dict[str, Any]] = []
        self.energy_detail = ""  # why there is none


class RunningBatch:
    """A batch under way, within the yard's limits. ``meter`` may be the reason why there is none.

    ``waiting`` is called while a worker is silent, ``step`` after each step.
    """

    def __init__(
        self,
        jobs: Sequence[JobRequest],
        plan: PlanRequest,
        yard: Yard,
        meter: Union[Meter, str],
        cooling: Cooling,
        waiting: Callable[[], None],
        step: Callable[[str], None],
    ) -> None:
        self.jobs = list(jobs)
        self.plan = plan
        self.yard = yard
        self.meter = meter
        self.cooling = cooling
        self.waiting = waiting
        self.step = step
        self.results = [Result() for _ in jobs]
        self.sentinel: List[Dict[str, Any]] = []
        self.not_cool = ""  # why a process began warmer than was asked for
        self.alone: Set[int] = set()  # jobs that find memory only without the others
        self.gone: Dict[int, Failed] = {}  # of the group that is measured now

    def run(self) -> None:
        """Run all generations, then the profiles."""
        for generation in range(self.plan.processes):
            order = [index for index, result in enumerate(self.results) if result.failed is None]
            random.Random("%d/%d" % (self.plan.seed, generation)).shuffle(order)
            groups = _groups([index for index in order if index not in self.alone], MOST_ALIVE - self.plan.sentinel)
            groups += [[index] for index in order if index in self.alone]
            repeated: Set[int] = set()
            for group in groups:
                try:
                    with self._cool_and_busy():
                        self._generation(generation, group)
                except RuntimeError as error:
                    self._crowded_out(generation, group, error)
                for index, failure in self.gone.items():
                    short = len(group) > 1 and _crowded(failure)
                    if index not in repeated and (short or isinstance(failure, Killed)):
                        self.alone.add(index)
                        repeated.add(index)
                        groups.append([index])
                        continue
                    again = partial(try_loading, self.jobs[index], waiting=self.waiting)
                    self.results[index].failed = explained(failure, self.plan, self.yard, again)
        if self.plan.profile:
            for index, result in enumerate(self.results):
                if result.failed is None:
                    with self._cool_and_busy():
                        self._profile(index)
        for generation in range(self.plan.processes if self.plan.energy else 0):
            for index, result in enumerate(self.results):
                if result.failed is None and not result.energy_detail:
                    with self._cool_and_busy():
                        self._energy(generation, index)

    def _cool_and_busy(self) -> ContextManager[None]:
        """Wait until it is cool, then keep the plan's number of other cores busy while the context lasts."""
        why = self.cooling.wait(self.waiting, temperature_c)
        self.not_cool = self.not_cool or why
        return busy_cores(self.plan.busy)

    def _crowded_out(self, generation: int, group: Sequence[int], error: RuntimeError) -> None:
        """Keep nothing where it was the sentinel that found no memory beside several: they are to be tried alone.

        Any other error is raised.
        """
        failure = error.__cause__
        if len(group) == 1 or not isinstance(failure, Failed) or not _crowded(failure):
            raise error
        for index in group:
            self.gone.setdefault(index, failure)
            del self.results[index].samples[generation:], self.results[index].beside[generation:]

    def _generation(self, generation: int, group: Sequence[int]) -> None:
        """Run a fresh process of each job of the group and of the sentinel (-1), a round each in turn."""
        order = list(group) + ([-1] if self.plan.sentinel else [])
        alive: Dict[int, Child] = {}
        self.gone = {}
        try:
            for index in order:
                self._guarded(index, alive, partial(self._start, generation, index, alive))
            for index in order:
                self._guarded(index, alive, partial(self._warm, index, alive))
            for number in range(self.plan.rounds):
                first = number % len(order)
                for index in order[first:] + order[:first]:
                    self._guarded(index, alive, partial(self._round, index, number, alive))
            for index in order:
                self._guarded(index, alive, partial(self._finish, index, alive))
                if index >= 0:
                    self.step("process %d" % (generation + 1))
        finally:
            for child in alive.values():
                child.close()

    def _guarded(self, index: int, alive: Dict[int, Child], act: Callable[[], None]) -> None:
        """Do something with one process. Its failure is that job's; the others go on."""
        if index in self.gone:
            return
        try:
            act()
        except Failed as failure:
            child = alive.pop(index, None)
            if child is not None:
                child.close()
            if index < 0:
                raise RuntimeError("the sentinel failed: %s" % failure) from failure
            self.gone[index] = failure

    def _start(self, generation: int, index: int, alive: Dict[int, Child]) -> None:
        plan, job = self.plan, SENTINEL if index < 0 else self.jobs[index]
        limit_bytes, yard = (0, self.yard.of_sentinel()) if index < 0 else (plan.memory_limit_bytes, self.yard)
        child = alive[index] = Child(job, limit_bytes, yard, self.waiting)
        child.open(plan.load_deadline_s)
        child.load(plan.load_deadline_s, plan.seed)
        child.first(plan.call_deadline_s)
        if generation == 0 and index >= 0:
            self.results[index].placement = child.ask("place", _SUM_UP_DEADLINE_S)["placement"]

    def _warm(self, index: int, alive: Dict[int, Child]) -> None:
        child, plan = alive[index], self.plan
        longest_s = plan.warmup_ms * 1e-2 + 2 * child.first_s
        child.ask("warm", longest_s + plan.call_deadline_s, warmup_ms=plan.warmup_ms)

    def _round(self, index: int, number: int, alive: Dict[int, Child]) -> None:
        child, plan = alive[index], self.plan
        rate_hz = plan.rate_hz if index >= 0 else 0.0
        gap_s = max(child.first_s, 1 / rate_hz if rate_hz > 0 else 0.0)
        longest_s = plan.round_ms * 1e-3 + plan.min_calls * 2 * gap_s + plan.call_deadline_s
        last = number == plan.rounds - 1
        child.ask("round", longest_s, round_ms=plan.round_ms, min_calls=plan.min_calls, rate_hz=rate_hz, last=last)

    def _finish(self, index: int, alive: Dict[int, Child]) -> None:
        sample = alive[index].ask("finish", _SUM_UP_DEADLINE_S)
        if index < 0:
            self.sentinel.append(sample)
            return
        self.results[index].samples.append(sample)
        if self.plan.sentinel:
            self.results[index].beside.append(len(self.sentinel))  # it is the last of its generation to finish

    def _profile(self, index: int) -> None:
        """Operators' times from a process of its own. Where a runtime fails at this, its reason is kept."""
        plan, result = self.plan, self.results[index]
        try:
            with Child(self.jobs[index], 0, self.yard, self.waiting) as child:
                child.open(plan.load_deadline_s)
                child.load(plan.load_deadline_s, plan.seed)
                child.first(plan.call_deadline_s)
                deadline_s = plan.load_deadline_s + plan.call_deadline_s + _PROFILED_CALLS * 3 * child.first_s
                answer = child.ask("profile", deadline_s, path=self.jobs[index].path, calls=_PROFILED_CALLS)
                result.operators = answer["operators"]
                result.operators_detail = "" if result.operators else "this backend doesn't tell them"
        except Failed as failure:
            result.operators_detail = "%s: %s" % (failure.outcome, failure.detail)
        self.step("operators")

    def _energy(self, generation: int, index: int) -> None:
        """Energy from a process of its own. Where no meter tells it, the reason is kept."""
        result = self.results[index]
        if isinstance(self.meter, str):
            result.energy_detail = self.meter
            return
        try:
            result.energy.append(energy.sample(self.jobs[index], self.plan, self.meter, self.yard, self.waiting))
        except MeterError as error:
            result.energy_detail = str(error)
        except Failed as failure:
            result.energy_detail = "%s: %s" % (failure.outcome, failure.detail)
        if result.energy_detail:
            result.energy = []
        self.step("energy %d" % (generation + 1))


def _crowded(failure: Failed) -> bool:
    """True where a process may find memory with fewer beside it: a board may have room for each and not for all.

    Android kills before the kernel has to, and says nothing of memory. One that has a limit may be killed for want of
    the board's memory as well: only alone it is known which.
    """
    return failure.outcome == "out-of-memory" or isinstance(failure, Killed)


def try_loading(job: JobRequest, plan: PlanRequest, yard: Yard, waiting: Callable[[], None]) -> None:
    """Load a model and call it once, in a process of its own. Raises Failed."""
    with Child(job, plan.memory_limit_bytes, yard, waiting) as child:
        child.open(plan.load_deadline_s)
        child.load(plan.load_deadline_s, plan.seed)
        child.first(plan.call_deadline_s)
        child.ask("place", _SUM_UP_DEADLINE_S)


def at_most_twice(act: Callable[[], _Answer]) -> _Answer:
    """Once more where a process was killed: what kills it the second time is its own need. Raises Failed."""
    try:
        return act()
    except Killed:
        return act()


def explained(failure: Failed, plan: PlanRequest, yard: Yard, again: Callable[[PlanRequest, Yard], object]) -> Failed:
    """Tell a refusal for want of memory from any other: ``again`` does the same, and well once the limit is off.

    Raises Fault where the failure says nothing of the model.
    """
    if isinstance(failure, NotStarted):
        raise Fault(failure.detail) from failure
    limit_bytes = plan.memory_limit_bytes or yard.rlimit_bytes  # a group kills, and says so
    if failure.outcome not in ("refused", "crashed") or not limit_bytes:
        return failure
    try:
        again(plan._replace(memory_limit_bytes=0), Yard(Limits()))
    except Failed:
        return failure
    return Failed("out-of-memory", "runs without the limit of %d bytes; with it: %s" % (limit_bytes, failure.detail))


def _groups(order: Sequence[int], most: int) -> List[List[int]]:
    """Near-equal groups no larger than that, in order."""
    if not order:
        return []
    count = -(-len(order) // most)
    return [list(order[start::count]) for start in range(count)]
