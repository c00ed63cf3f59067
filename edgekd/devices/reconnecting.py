"""A session that outlives its connection: what was asked when it broke is asked again.

Every request can be repeated: a batch is measured anew from its first process, files are known by their digest. A
device that comes back as another one is not gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from edgekd.devices._protocol import Fingerprint, Job, Measurement, MeasurePlan, PowerModel, Progress, RunResult
from edgekd.devices.link import Link
from edgekd.devices.lock import DeviceLock
from edgekd.devices.session import AgentSession
from edgekd.errors import ConnectionLost, DeviceBusy, DeviceUnreachable, Problem

__all__ = ["SteadySession", "opened"]

_Result = TypeVar("_Result")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_MOST_REPEATS = 8  # of one request, on a device that keeps coming back


def opened(
    device: str,
    patience_s: float,
    power_model: PowerModel | None,
    connect: Callable[[str], Link],
    cooling_s: float = 0.0,
) -> SteadySession:
    """Take the device's lock, connect, and greet the agent; ``connect`` gets the lock's token.

    ``cooling_s`` is the longest that the device may wait until it is cool.

    Raises DeviceBusy, DeviceUnreachable, MissingError.
    """
    lock = DeviceLock(device)

    def start() -> AgentSession:
        return AgentSession(device, connect(token), lambda: None, power_model=power_model, cooling_s=cooling_s)

    try:
        token = lock.token()
        return SteadySession(device, start, lock.release, patience_s)
    except BaseException:
        lock.release()
        raise


class SteadySession:
    """A DeviceSession. ``patience_s`` is how long it tries to get a lost device back before it gives up."""

    def __init__(
        self, device: str, start: Callable[[], AgentSession], release: Callable[[], None], patience_s: float
    ) -> None:
        self.device = device
        self._start = start
        self._release = release
        self._patience_s = patience_s
        self._session: AgentSession | None = start()
        self._fingerprint: Fingerprint | None = None
        self._open = True

    def __enter__(self) -> SteadySession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> Fingerprint:
        """See DeviceSession."""
        return self._do(lambda session: session.describe())

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """See DeviceSession."""
        return self._do(lambda session: session.prepare(jobs))

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """See DeviceSession."""
        most = 0

        def onward(what: str, done: int, total: int) -> None:  # a batch that begins anew doesn't count backwards
            nonlocal most
            most = max(most, done)
            if progress is not None:
                progress(what, most, total)

        steps = len(jobs) * (plan.processes * (1 + plan.energy) + plan.profile)
        return self._do(lambda session: session.measure(jobs, plan, onward), lambda what: onward(what, 0, steps))

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:
        """See DeviceSession."""
        return self._do(lambda session: session.run(job, inputs, threads))

    def close(self) -> None:
        """See DeviceSession."""
        if self._open:
            self._open = False
            self._let_go()
            self._release()

    def _do(self, work: Callable[[AgentSession], _Result], waiting: Callable[[str], None] = lambda _: None) -> _Result:
        if not self._open:
            raise DeviceUnreachable(f"the session with {self.device} is closed", "open the device again")
        lost_s, wait_s, repeats = 0.0, _FIRST_WAIT_S, 0
        while True:
            try:
                session = self._connected()
                lost_s, wait_s, repeats = 0.0, _FIRST_WAIT_S, repeats + 1
                return work(session)
            except (ConnectionLost, DeviceBusy) as error:  # busy: with the session that was lost, for a moment
                self._let_go()
                lost_s = lost_s or time.monotonic()
                if repeats >= _MOST_REPEATS or time.monotonic() + wait_s > lost_s + self._patience_s:
                    self.close()
                    raise DeviceUnreachable(
                        f"{self.device} was lost {repeats} times over one request: {error.message}"
                        if repeats >= _MOST_REPEATS
                        else f"{self.device} was lost, and did not come back within {self._patience_s:g} s: "
                        f"{error.message}",
                        f"{error.remedy}; what a run has finished is kept, and the same command goes on from there",
                    ) from error
                waiting(f"{error.message}: trying again")
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            except BaseException:
                self.close()
                raise

    def _let_go(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    def _connected(self) -> AgentSession:
        """The session, opened anew where it broke, on the device that it was."""
        if self._session is None or not self._session.is_open:
            self._session = None
            self._session = self._start()
        found = self._session.describe()
        if self._fingerprint is not None and (differs := _changes(self._fingerprint, found)):
            raise DeviceUnreachable(
                f"{self.device} came back changed: {', '.join(differs)}",
                "set it as it was, and give the same command again; what was measured before does not hold there now",
            )
        self._fingerprint = found
        return self._session


def _changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs, of all runtimes: a session's batches may use any of them."""
    facts = {name: (getattr(before, name), getattr(now, name)) for name in before.changed(now) if name != "runtimes"}
    runtimes = {**before.runtimes, **now.runtimes}
    facts |= {name: (before.runtimes.get(name), now.runtimes.get(name)) for name in runtimes}
    return [f"{name} ({old or 'none'}, now {new or 'none'})" for name, (old, new) in facts.items() if old != new]
