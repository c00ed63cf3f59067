"""Artificial limits, really enforced: fewer cores, a share of a core's time, less memory.

Cores are an affinity, inherited by every worker. Time and memory are a control group of each worker's own, of version
2 or 1, whichever can be written here. Where none can, memory is what the worker's data may grow to once its runtime
is there (RLIMIT_DATA); time can't be limited then, and that is said, not passed over. A quota stops a process for the
rest of each 10 ms period: it shows in the mean and in throughput, hardly in the median of short calls.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgekd.agent.messages import field

__all__ = ["Cage", "Limits", "Yard"]

_PERIOD_US = 10000
_ROOT = "/sys/fs/cgroup"


class Limits(NamedTuple):
    """What is asked for; 0 is no limit."""

    cores: int = 0
    cpu: float = 0.0  # of one core's time: 0.5 is a half
    memory_bytes: int = 0  # of a measured process, all of it

    @staticmethod
    def read(told: Dict[str, Any]) -> Limits:
        """Out of a message. Raises BadMessage."""
        return Limits(field(told, "cores", int), field(told, "cpu", float), field(told, "memory_bytes", int))


class Cage:
    """The control groups of one worker. Made before it starts, removed once it is gone."""

    def __init__(self, folders: List[Tuple[str, Dict[str, str]]]) -> None:
        self.folders: List[str] = []
        try:
            for folder, files in folders:
                os.mkdir(folder)
                self.folders.append(folder)
                for name, value in files.items():
                    _write(os.path.join(folder, name), value)
        except OSError:
            self.remove()
            raise

    def hold(self, pid: int) -> None:
        """Put a process in. Raises OSError."""
        for folder in self.folders:
            _write(os.path.join(folder, "cgroup.procs"), str(pid))

    def killed(self) -> bool:
        """Whether the kernel has ended a process of it for its memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(os.path.join(folder, name)).splitlines():
                    if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                        return True
        return False

    def remove(self) -> None:
        """Let the groups go; a process that is just ending keeps one for a moment."""
        for folder in self.folders:
            for _ in range(50):
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
        self.folders = []


class Yard:
    """How limits are enforced here. ``words`` says by what; ``unenforced`` what can't be, empty if all can."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.unenforced = ""
        self.rlimit_bytes = 0  # of a process in all, where no group can hold memory
        self.count = 0
        words: List[str] = []
        if limits.cores:
            words.append(self._bind(limits.cores))
        self.homes: Dict[str, Tuple[str, int]] = {}  # controller -> parent group, version
        for controller, wanted in (("cpu", limits.cpu), ("memory", limits.memory_bytes)):
            if wanted:
                found = _home(controller)
                if found is not None:
                    self.homes[controller] = found
        if limits.cpu:
            if "cpu" in self.homes:
                words.append("%g%% of a core by cgroup v%d" % (100 * limits.cpu, self.homes["cpu"][1]))
            else:
                self.unenforced = "a share of a core's time: no cpu control group can be written here"
        if limits.memory_bytes:
            if "memory" in self.homes:
                words.append("%s by cgroup v%d" % (_mib(limits.memory_bytes), self.homes["memory"][1]))
            else:
                self.rlimit_bytes = limits.memory_bytes
                words.append("%s by RLIMIT_DATA" % _mib(limits.memory_bytes))
        self.words = ", ".join(words)

    def _bind(self, cores: int) -> str:
        allowed = sorted(os.sched_getaffinity(0))
        if cores > len(allowed):
            self.unenforced = "%d cores: there are %d" % (cores, len(allowed))
            return ""
        os.sched_setaffinity(0, allowed[:cores])
        return "%d core%s by affinity" % (cores, "" if cores == 1 else "s")

    def of_sentinel(self) -> "Yard":
        """The sentinel has the same cores, and neither less time nor less memory: it shows what the machine does."""
        return Yard(Limits())

    def cage(self) -> Optional[Cage]:
        """Groups for one more worker; None where none is needed. Raises OSError."""
        if not self.homes:
            return None
        self.count += 1
        wanted: Dict[str, Dict[str, str]] = {}
        for controller, (parent, version) in self.homes.items():
            folder = os.path.join(parent, "edgekd-%d-%d" % (os.getpid(), self.count))
            wanted.setdefault(folder, {}).update(_files(controller, version, self.limits))
        return Cage(list(wanted.items()))


def _files(controller: str, version: int, limits: Limits) -> Dict[str, str]:
    quota = str(int(limits.cpu * _PERIOD_US))
    if controller == "cpu":
        if version == 2:
            return {"cpu.max": "%s %d" % (quota, _PERIOD_US)}
        return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
    memory = str(limits.memory_bytes)
    if version == 2:
        return {"memory.max": memory, "memory.swap.max": "0"}
    return {"memory.limit_in_bytes": memory, "memory.swappiness": "0"}


def _mib(size_bytes: int) -> str:
    return "%g MiB" % (size_bytes / 1024.0**2)


def _home(controller: str) -> Optional[Tuple[str, int]]:
    """A group in which a child can be made that the controller holds, and the version: tried, not guessed."""
    for parent, version in _candidates(controller):
        if version == 2 and controller not in _read(os.path.join(parent, "cgroup.subtree_control")).split():
            try:
                _write(os.path.join(parent, "cgroup.subtree_control"), "+" + controller)
            except OSError:
                continue
        trial = os.path.join(parent, "edgekd-%d-trial" % os.getpid())
        try:
            os.mkdir(trial)
        except OSError:
            continue
        needed = next(iter(_files(controller, version, Limits(cpu=1.0, memory_bytes=1 << 40))))
        usable = os.access(os.path.join(trial, needed), os.W_OK)
        os.rmdir(trial)
        if usable:
            return parent, version
    return None


def _candidates(controller: str) -> List[Tuple[str, int]]:
    """Our own group, then the root, of version 2 and then 1."""
    found: List[Tuple[str, int]] = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [(os.path.join(_ROOT, path.lstrip("/")), 2), (_ROOT, 2)]
        elif controller in controllers.split(","):
            for name in (controllers, controller):
                found += [(os.path.join(_ROOT, name, path.lstrip("/")), 1), (os.path.join(_ROOT, name), 1)]
    return sorted(((parent, version) for parent, version in found if os.path.isdir(parent)), key=lambda one: -one[1])


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:  # no such file: this kernel has another way, or none
        return ""


def _write(path: str, value: str) -> Any:
    with open(path, "w", encoding="ascii") as stream:
        return stream.write(value)
