"""This computer made smaller: each limit is felt by what runs, is stated in the fingerprint, or is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from edgekd.agent import limits as enforcing
from edgekd.devices._protocol import MeasurePlan, Outcome
from edgekd.devices.agent_options import LimitOptions
from edgekd.devices.diagnostic import null_job
from edgekd.devices.local import LocalDevice
from edgekd.errors import MissingError
from edgekd.evidence import EvidenceKind

pytestmark = pytest.mark.runtime  # agents and what they measure, in processes of their own

PLAN = MeasurePlan(processes=2, rounds=4, round_ms=60.0, warmup_ms=20.0)
SHORT = PLAN.but(round_ms=2.0)  # millions of calls that do nothing take memory to count
has_cpu = pytest.mark.skipif(
    not enforcing._homes(["cpu"], enforcing.Limits(cpu=0.5)), reason="no cpu control group can be written here"
)
has_memory = pytest.mark.skipif(
    not enforcing._homes(["memory"], enforcing.Limits(memory_bytes=1 << 30)),
    reason="no memory control group can be written here",
)


def limited(**limits: object) -> LocalDevice:
    return LocalDevice(name=f"small-{time.monotonic_ns()}", limits=LimitOptions.model_validate(limits))


def groups() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob("edgekd-*") if path.is_dir()]


def test_one_core(tmp_path: Path) -> None:
    with limited(cores=1).open() as session:
        fingerprint = session.describe()
        (result,) = session.measure([null_job(tmp_path)], PLAN)
    assert fingerprint.cores == 1
    assert fingerprint.limits == "1 core by affinity"
    assert result.kind is EvidenceKind.EMULATED
    assert result.fingerprint == fingerprint.digest()


def test_the_fingerprint_without_limits_is_as_it_was(tmp_path: Path) -> None:
    with LocalDevice(name=f"plain-{time.monotonic_ns()}").open() as session:
        plain = session.describe()
    assert plain.limits == ""
    assert plain.digest() != plain.but(limits="1 core by affinity").digest()
    with limited(cores=psutil.cpu_count()).open() as session:
        assert session.describe().digest() != plain.digest()


@has_cpu
def test_a_share_of_a_core_shows_in_the_mean_and_not_in_the_low_quantile(tmp_path: Path) -> None:
    with limited(cpu="25 %").open() as session:
        assert session.describe().limits.startswith("25% of a core by cgroup v")
        (result,) = session.measure([null_job(tmp_path, "spin=500")], PLAN)
    for sample in result.processes:
        assert sample.p5_us < 1.5 * 500
        assert sample.mean_us > 2.5 * 500
    assert not groups()


@has_cpu
def test_less_than_a_millisecond_of_ten_takes_a_longer_period(tmp_path: Path) -> None:
    with limited(cpu="4 %").open() as session:
        assert session.describe().limits.startswith("4% of a core")
        (result,) = session.measure([null_job(tmp_path, "spin=500")], PLAN.but(processes=1, sentinel=False))
    assert result.outcome is Outcome.OK
    assert result.processes[0].mean_us > 5 * 500


@has_memory
def test_a_crash_within_a_memory_limit_is_a_crash(tmp_path: Path) -> None:
    with limited(memory="256 MiB").open() as session:
        (crashed,) = session.measure([null_job(tmp_path, "crash")], SHORT)
    assert crashed.outcome is Outcome.CRASHED


@has_memory
def test_groups_of_an_agent_that_was_killed_are_removed(tmp_path: Path) -> None:
    parent = Path(enforcing._homes(["memory"], enforcing.Limits(memory_bytes=1 << 30))["memory"][0])
    left = parent / "edgekd-4194303-7"  # no process has such a number for long
    left.mkdir()
    limited(memory="256 MiB").open().close()
    assert not left.exists()


@has_memory
def test_want_of_memory_is_told_from_a_crash(tmp_path: Path) -> None:
    jobs = [null_job(tmp_path, how) for how in ("alloc=200000000", "crash", "alloc=1000000")]
    with limited(memory="96 MiB").open() as session:
        assert session.describe().limits.startswith("96 MiB by cgroup v")
        hungry, crashed, modest = session.measure(jobs, SHORT)
        assert session.prepare(jobs[:1])[jobs[0]] is not None
    assert (hungry.outcome, modest.outcome) == (Outcome.OUT_OF_MEMORY, Outcome.OK)
    assert "limit of what a process may take" in hungry.detail
    assert crashed.outcome is Outcome.CRASHED
    assert "SIGSEGV" in crashed.detail
    assert not groups()


def test_without_control_groups_memory_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ordinary user has it: the agent's own view of the groups is an empty folder."""
    device = without_groups(limited(memory="96 MiB"), tmp_path, monkeypatch)
    jobs = [null_job(tmp_path, how) for how in ("alloc=200000000", "crash", "alloc=1000000")]
    with device.open() as session:
        assert session.describe().limits == "96 MiB by RLIMIT_DATA"
        hungry, crashed, modest = session.measure(jobs, SHORT)
    assert (hungry.outcome, crashed.outcome, modest.outcome) == (
        Outcome.OUT_OF_MEMORY,
        Outcome.CRASHED,
        Outcome.OK,
    )


def test_a_quota_that_cannot_be_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="a share of a core's time: no cpu control group"):
        without_groups(limited(cpu="50 %"), tmp_path, monkeypatch).open()


@pytest.mark.parametrize(
    ("version", "files", "of_swap"),
    [
        (1, {"memory.limit_in_bytes": "1000", "memory.swappiness": "0"}, {"memory.memsw.limit_in_bytes": "1000"}),
        (2, {"memory.max": "1000"}, {"memory.swap.max": "0"}),
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_swapping_does_not_pass_a_limit_where_it_is_counted(
    version: int,
    files: dict[str, str],
    of_swap: dict[str, str],
    counted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent has no file of swap, as version 2's root has none: what the kernel puts into a new group counts."""
    expected = files | (of_swap if counted else {})
    make, written = os.mkdir, list[str]()

    def made_by_the_kernel(folder: str) -> None:
        make(folder)
        for name in [*expected, "cgroup.procs"]:
            Path(folder, name).touch()

    def noted(place: str, value: str) -> None:
        written.append(Path(place).name)
        write(place, value)

    write = enforcing._write
    monkeypatch.setattr(enforcing, "_write", noted)
    monkeypatch.setattr(enforcing.os, "mkdir", made_by_the_kernel)
    limits = enforcing.Limits(memory_bytes=1000)
    (folder,) = enforcing.Cage(enforcing._folders({"memory": (str(tmp_path), version)}, limits, "1")).folders
    assert {path.name: path.read_text() for path in Path(folder).iterdir()} == expected | {"cgroup.procs": ""}
    assert written == list(expected)  # the kernel refuses memory and swap below memory alone: that comes first


def test_more_cores_than_there_are() -> None:
    with pytest.raises(MissingError, match="4096 cores: there are"):
        limited(cores=4096).open()


def without_groups(device: LocalDevice, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LocalDevice:
    """An agent that finds no control group: its sources name another root for them."""
    from edgekd.devices import zipapp

    whole = zipapp._sources

    def elsewhere() -> dict[str, str]:
        found = dict(whole())
        name = "edgekd/agent/limits.py"
        assert '"/sys/fs/cgroup"' in found[name]
        found[name] = found[name].replace('"/sys/fs/cgroup"', repr(str(folder / "none")))
        return found

    monkeypatch.setattr(zipapp, "_sources", elsewhere)
    path = zipapp.agent_path.__wrapped__(folder)
    monkeypatch.setattr("edgekd.devices.local.agent_path", lambda: path)
    return device


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"cpu": 0.5}, None),
        ({"cpu": "50 %"}, None),
        ({"cpu": "half"}, "`50 %`"),
        ({"cpu": 50}, "`50 %`"),
        ({"memory": 64}, "unit"),
        ({"cores": 0}, "greater than 0"),
    ],
)
def test_what_a_person_may_write(written: dict[str, object], expected: str | None) -> None:
    if expected is None:
        assert LimitOptions.model_validate(written).cpu == 0.5
        return
    with pytest.raises(ValidationError, match=expected):
        LimitOptions.model_validate(written)
