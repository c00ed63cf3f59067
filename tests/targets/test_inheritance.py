from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.targets.catalogue import load_resolved, load_target

BASE = """\
schema: edgekd.target/1
device: this-computer
backends: [litert/xnnpack, openvino/cpu]
budgets:
  latency: {p95: 5 ms, p50: 3 ms}
  size: {file: 1 MiB}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return _write


def test_a_target_inherits_field_by_field_and_knows_each_origin(write: Callable[..., Path]) -> None:
    base = write("base", BASE)
    mine = write(
        "mine",
        "schema: edgekd.target/1\nextends: base\nbackends: [openvino/cpu]\n"
        "budgets:\n  latency: {p95: 4 ms}\n  size: null\n",
    )
    target, resolved = load_resolved(mine)
    assert [str(limit) for limit in target.limits] == ["latency.p50 <= 3 ms", "latency.p95 <= 4 ms"]
    assert [str(backend) for backend in target.backends] == ["openvino/cpu"]
    assert target.name == "mine"
    changed, kept = (resolved.place(("budgets", "latency", key)) for key in ("p95", "p50"))
    assert (changed.file, changed.line) == (str(mine), 5)
    assert (kept.file, kept.line) == (str(base), 5)


def test_a_problem_in_an_inherited_file_is_placed_there(write: Callable[..., Path]) -> None:
    base = write("base", BASE.replace("5 ms", "5"))
    with pytest.raises(ConfigurationError, match="5 has no unit") as caught:
        load_target(write("mine", "schema: edgekd.target/1\nextends: base\n"))
    assert caught.value.problems[0].place.file == str(base)
    assert caught.value.problems[0].place.line == 5


def test_a_circle_is_refused_and_drawn(write: Callable[..., Path]) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "b")):
        write(name, f"schema: edgekd.target/1\nextends: {parent}\n")
    with pytest.raises(ConfigurationError, match=r"circle: b -> c -> b"):
        load_target("a", Path(write("x", "").parent))


def test_a_target_may_extend_the_shipped_one_of_its_own_name(write: Callable[..., Path]) -> None:
    path = write("pi5-30fps", "schema: edgekd.target/1\nextends: pi5-30fps\nthreads: 2\n")
    target = load_target(path)
    assert (target.threads, target.device) == (2, "raspberry-pi-5")


def test_an_unknown_parent_is_placed_at_extends(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match="did you mean `pi5-30fps`") as caught:
        load_target(write("mine", "schema: edgekd.target/1\nextends: pi5-30fp\n"))
    assert caught.value.problems[0].place.line == 2


def test_everything_wrong_in_a_target_is_said_at_once(write: Callable[..., Path]) -> None:
    text = """\
schema: edgekd.target/1
device: raspbery-pi-5
backends: [litert/xnpack, openvino/cpu]
threads: 0
load: {pattern: periodic}
budgets:
  latency: {p96: 3 ms, p50: 33}
accuracy: {floor: 2}
"""
    with pytest.raises(ConfigurationError) as caught:
        load_target(write("mine", text))
    said = {problem.place.field: str(problem) for problem in caught.value.problems}
    assert set(said) == {
        "device",
        "backends[0]",
        "threads",
        "load",
        "budgets.latency.p96",
        "budgets.latency.p50",
        "accuracy.floor",
    }
    assert "did you mean `raspberry-pi-5`" in said["device"]
    assert "did you mean `litert/xnnpack`" in said["backends[0]"]
    assert "33 has no unit" in said["budgets.latency.p50"]
    assert all(problem.place.line for problem in caught.value.problems)


def test_a_target_is_named_after_its_file(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match="named after its file"):
        load_target(write("mine", BASE + "name: other\n"))


@pytest.mark.parametrize("name", ["", "no-such", "a\x1bb", "x" * 5000, "."])
def test_a_name_that_is_no_target(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_target(name)
    assert "pi5-30fps" in caught.value.known
