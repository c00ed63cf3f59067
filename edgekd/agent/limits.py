"""Artificial limits, really enforced: fewer cores, a share of a core's time, less memory.

Cores are an affinity, inherited by every worker. Time and memory are a control group of each worker's own, of version
2 or 1, whichever can be written here. Where none can, memory is what the worker's data may grow to once its runtime
is there (RLIMIT_DATA); time can't be limited then, and that is said, not passed over. A quota stops a process for the
rest of each 10 ms period: it shows in the mean and in throughput, hardly in the median of short calls.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from edgekd.agent.messages import field

__all__ = ["Cage", "Limits", "Yard"]

Home = Tuple[str, int]
"""A group that others are made in, and its version."""

_PERIOD_US = 10000
_OF_SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")  # a group has them where the kernel counts swap
_ROOT = "/sys/fs/cgroup"


class Limits(NamedTuple):
    """Limits that are asked for; 0 is none."""

    cores: int = 0
    cpu: float = 0.0  # of one core's time: 0.5 is a half
    memory_bytes: int = 0  # of a measured process, all of it

    @staticmethod
    def read(message: Dict[str, Any]) -> Limits:
        """Out of a message. Raises BadMessage."""
        return Limits(field(message, "cores", int), field(message, "cpu", float), field(message, "memory_bytes", int))


class Cage:
    """The control groups of one worker. Made before it starts, removed once it is gone. Raises OSError."""

    def __init__(self, folders: Mapping[str, Mapping[str, str]]) -> None:
        self.folders: List[str] = []
        try:
            for folder, files in folders.items():
                try:
                    os.mkdir(folder)
                except FileExistsError:  # of an agent that was killed, and had our number
                    os.rmdir(folder)
                    os.mkdir(folder)
                self.folders.append(folder)
                for name, value in files.items():
                    place = os.path.join(folder, name)
                    if name not in _OF_SWAP or os.path.exists(place):
                        _write(place, value)
        except OSError:
            self.remove()
            raise

    def hold(self, pid: int) -> None:
        """Put a process in. Raises OSError."""
        for folder in self.folders:
            _write(os.path.join(folder, "cgroup.procs"), str(pid))

    def killed(self) -> bool:
        """True where the kernel has ended a process of it for its memory."""
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
    """Enforcement of limits here. ``words`` says by what; ``unenforced`` what can't be, empty if all can."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.unenforced = ""
        self.rlimit_bytes = 0  # of a process in all, where no group can hold memory
        self.count = 0
        words = [self._bind(limits.cores)] if limits.cores else []
        controllers = [name for name, wanted in (("cpu", limits.cpu), ("memory", limits.memory_bytes)) if wanted]
        self.homes = _homes(controllers, limits)
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

    def of_sentinel(self) -> Yard:
        """The sentinel has the same cores, and neither less time nor less memory: it shows what the machine does."""
        return Yard(Limits())

    def cage(self) -> Optional[Cage]:
        """Groups for one more worker; None where none is needed. Raises OSError."""
        if not self.homes:
            return None
        self.count += 1
        return Cage(_folders(self.homes, self.limits, str(self.count)))


def _folders(homes: Mapping[str, Home], limits: Limits, name: str) -> Dict[str, Dict[str, str]]:
    """Each group to make, with what is written into its files."""
    wanted: Dict[str, Dict[str, str]] = {}
    for controller, (parent, version) in homes.items():
        folder = os.path.join(parent, "edgekd-%d-%s" % (os.getpid(), name))
        wanted.setdefault(folder, {}).update(_files(controller, version, limits))
    return wanted


def _files(controller: str, version: int, limits: Limits) -> Dict[str, str]:
    if controller == "cpu":
        # the kernel gives no less than 1 ms a period, and takes no period over a second
        period = min(1000000, max(_PERIOD_US, math.ceil(1000.0 / limits.cpu)))
        quota = max(1000, int(limits.cpu * period))
        if version == 2:
            return {"cpu.max": "%d %d" % (quota, period)}
        return {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
    memory = str(limits.memory_bytes)
    if version == 1:  # the sum with swap may not be below memory alone, so it comes after
        return {"memory.limit_in_bytes": memory, "memory.swappiness": "0", "memory.memsw.limit_in_bytes": memory}
    return {"memory.max": memory, "memory.swap.max": "0"}


def _homes(controllers: Sequence[str], limits: Limits) -> Dict[str, Home]:
    """Parents in which groups hold a process by these controllers: tried with one, not guessed.

    A process is in one group of version 2, so there all of them must be had from one parent; else version 1 is looked
    for, a parent each. What agents that were killed have left is removed on the way.
    """
    parents = _parents()
    for parent in parents.get("", []) if controllers else []:
        _sweep(parent)
        homes = dict.fromkeys(controllers, (parent, 2))
        turned_on = _turn_on(parent, controllers)
        if turned_on is not None:
            if _holds(homes, limits):
                return homes
            for controller in turned_on:
                _turn(parent, "-" + controller)
    found: Dict[str, Home] = {}
    for controller in controllers:
        for parent in parents.get(controller, []):
            _sweep(parent)
            if _holds({controller: (parent, 1)}, limits):
                found[controller] = (parent, 1)
                break
    return found


def _holds(homes: Mapping[str, Home], limits: Limits) -> bool:
    """True where a process can be put into a group made so."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        free = limits._replace(memory_bytes=limits.memory_bytes and 1 << 40)  # the way is tried, not the room
        cage = Cage(_folders(homes, free, "trial"))
    except OSError:
        cage = None
    held = False
    if cage is not None:
        try:
            cage.hold(child.pid)
            held = True
        except OSError:
            pass
    child.kill()
    child.communicate()
    if cage is not None:
        cage.remove()
    return held


def _turn_on(parent: str, controllers: Sequence[str]) -> Optional[List[str]]:
    """Let a parent's children be held by them: those that had to be turned on, None where it can't be."""
    there = _read(os.path.join(parent, "cgroup.controllers")).split()
    on = _read(os.path.join(parent, "cgroup.subtree_control")).split()
    turned: List[str] = []
    for controller in controllers:
        if controller in on:
            continue
        if controller not in there or not _turn(parent, "+" + controller):
            for one in turned:
                _turn(parent, "-" + one)
            return None
        turned.append(controller)
    return turned


def _turn(parent: str, word: str) -> bool:
    try:
        _write(os.path.join(parent, "cgroup.subtree_control"), word)
    except OSError:
        return False
    return True


def _sweep(parent: str) -> None:
    """Remove the empty groups of agents that are gone."""
    try:
        names = [name for name in os.listdir(parent) if re.match(r"^edgekd-\d+-\w+$", name)]
    except OSError:
        return
    for name in names:
        if not os.path.exists("/proc/%s" % name.split("-")[1]):
            try:
                os.rmdir(os.path.join(parent, name))
            except OSError:  # a process of it lives on: it is nobody's rubbish
                continue


def _parents() -> Dict[str, List[str]]:
    """Groups by controller ("" is version 2): our own, then the root."""
    found: Dict[str, List[str]] = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            roots = [_ROOT, os.path.join(_ROOT, "unified")] if not controller else []
            roots += [os.path.join(_ROOT, name) for name in {controllers, controller} if name]
            places = [os.path.join(root, path.lstrip("/")) for root in roots] + roots
            known = "cgroup.controllers" if not controller else "cgroup.procs"
            found.setdefault(controller, []).extend(
                place.rstrip("/") for place in places if os.path.exists(os.path.join(place, known))
            )
    return found


def _mib(size_bytes: int) -> str:
    return "%g MiB" % (size_bytes / 1024.0**2)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:  # no such file: this kernel has another way, or none
        return ""


def _write(path: str, value: str) -> None:
    """Into a file that is there; in the wrong place none is made."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode("ascii"))
    finally:
        os.close(descriptor)
