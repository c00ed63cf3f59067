"""Shared by all tests: shipped contract suites explain their failures, and nothing leaks into a person's folders."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from edgekd.agent.telemetry import keep_silent
from edgekd.devices.zipapp import agent_path

PERSONS_CACHE = Path(platformdirs.user_cache_dir("edgekd"))  # before `own_cache` hides it
keep_silent()
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # other programs may run beside a test
pytest.register_assert_rewrite("edgekd.testing.contracts")  # and every module in it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the journeys, and short tests are left for the end, to be stolen.

    xdist's work stealing first gives each of n workers the next n-th of all tests.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    journeys = [each for each in items if each.get_closest_marker("journey")]
    others = [each for each in items if not each.get_closest_marker("journey")]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        share = journeys[worker::workers]
        room = (len(items) - len(ordered)) // (workers - worker) - len(share)
        ordered += share + others[: max(room, 0)]
        del others[: max(room, 0)]
    items[:] = ordered + others


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks at it again, which takes an eighth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locks, teachers, tables and the agent's file go into folders of this process: no test waits for another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        agent_path.cache_clear()
        yield
    agent_path.cache_clear()


@pytest.fixture(scope="session")
def phone_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a phone on loopback, for this process alone. They are built once for all, in the person's cache."""
    from edgekd.testing.adbd import build_root

    place = PERSONS_CACHE / "testing"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "adbd-root.lock"):
        built = build_root(place)
    own = tmp_path_factory.mktemp("phone") / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", built, own], check=True)
    yield own
    assert not (own / "dev").is_mount()  # the phone's /dev is this computer's, in a namespace of its own
    shutil.rmtree(own)  # 300 MB


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by the session's tests."""
    return tmp_path_factory.mktemp("edgekd-cache")


@pytest.fixture
def task() -> Any:
    """Three classes told apart by a bright bar."""
    from edgekd.testing.fakes.bars import BarTask

    return BarTask()


@pytest.fixture
def teacher() -> Any:
    """Knows where to look."""
    from edgekd.testing.fakes.bars import BarTeacher

    return BarTeacher()


@pytest.fixture
def student(task: Any) -> Any:
    """Untrained, and small."""
    from edgekd.ir.space import Arch
    from edgekd.students.resnet import ResNet
    from edgekd.students.student import new_student

    family = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 2]}, "stages": 2})
    return new_student(family, Arch.of({"width1": 8, "width2": 8, "depth1": 1, "depth2": 1}), task.spec, seed=0)


@pytest.fixture
def context(task: Any, teacher: Any) -> Callable[..., Any]:
    """A function from a folder to a stage's context."""
    from edgekd.stages import StageContext

    def make(folder: Path, **changes: Any) -> StageContext:
        options = {
            "task": task,
            "teacher": teacher,
            "device": None,
            "backend": None,
            "folder": folder / "stage",
            "cache": folder / "cache",
            "seed": 3,
            "progress": lambda at: None,
            "stop": lambda: False,
        }
        return StageContext(**{**options, **changes})

    return make
