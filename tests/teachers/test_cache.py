"""What a teacher said, kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distill.augment._protocol import PixelAugmentation
from edgekd.errors import ConfigurationError, Interrupted, MissingError
from edgekd.students.points import Point
from edgekd.tasks._protocol import Split
from edgekd.teachers import cache as cache_module
from edgekd.teachers.cache import TeacherCache
from edgekd.teachers.torch import TorchTeacher


@dataclass
class Sums:
    """Answers with sums over the picture, and counts what it was asked."""

    classes: int = 3
    name: str = "sums"
    asked: list[int] = field(default_factory=list)

    def digest(self) -> str:
        return "1" * 64

    def logits(self, batch: Tensor) -> Tensor:
        self.asked.append(len(batch))
        return batch.flatten(1).sum(1, keepdim=True) * torch.arange(1.0, self.classes + 1)


class Shifted(PixelAugmentation):
    """A view that adds something known by seed and sample."""

    def digest(self) -> str:
        return "2" * 64

    def pixels(self, batch: Tensor, indices: np.ndarray, seed: int) -> Tensor:
        return batch.float() + torch.from_numpy(seed * 1000 + indices).float().reshape(-1, 1, 1, 1)


def split(samples: int = 5000) -> Split:
    rng = np.random.default_rng(0)
    return Split(
        "train", rng.integers(0, 9, (samples, 1, 2, 2)).astype(np.uint8), np.zeros(samples, np.int64), "3" * 64
    )


def expected(part: Split, seeds: list[int]) -> np.ndarray:
    shift = 4 * (np.array(seeds)[:, None] * 1000 + np.arange(len(part)))
    sums = part.inputs.reshape(len(part), -1).sum(1) + shift
    return sums[..., None] * np.arange(1.0, 4.0)


def ask(cache: TeacherCache, *given, **options) -> np.ndarray:
    return cache.outputs(*given, **options).logits


@pytest.fixture
def cache(tmp_path) -> TeacherCache:
    return TeacherCache(tmp_path / "answers")


def test_answers_are_the_teachers_and_given_once(cache):
    teacher, part = Sums(), split()
    found = ask(cache, teacher, part, Shifted(), [4, 5])
    assert found.shape == (2, 5000, 3)
    assert found.dtype == np.float32
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, expected(part, [4, 5]).astype(np.float32))
    asked = len(teacher.asked)
    again = ask(TeacherCache(cache.folder), teacher, part, Shifted(), [4, 5])
    assert len(teacher.asked) == asked
    assert np.array_equal(again, found)


def test_a_longer_run_adds_only_what_it_lacks(cache):
    teacher, part = Sums(), split(100)
    ask(cache, teacher, part, Shifted(), [0, 1])
    teacher.asked.clear()
    assert cache.cost(teacher, part, Shifted(), [0, 1, 2]).images == 100
    found = ask(cache, teacher, part, Shifted(), [0, 1, 2])
    assert sum(teacher.asked) == 100
    assert np.array_equal(found, expected(part, [0, 1, 2]).astype(np.float32))


@pytest.mark.parametrize("seeds", [[2], [1, 2], [2, 0], [1, 1]])
def test_any_seeds_in_any_order(cache, seeds):
    teacher, part = Sums(), split(50)
    ask(cache, teacher, part, Shifted(), [0, 1, 2])
    assert np.array_equal(ask(cache, teacher, part, Shifted(), seeds), expected(part, seeds).astype(np.float32))


def test_without_a_view_all_seeds_are_one(cache):
    teacher, part = Sums(), split(50)
    found = ask(cache, teacher, part, None, [7, 8, 9])
    assert found.shape == (3, 50, 3)
    assert sum(teacher.asked) == 50
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], expected(part, [0])[0] - 4 * np.arange(50)[:, None] * np.arange(1.0, 4.0))


def test_teacher_split_and_view_have_their_own_answers(cache):
    part = split(50)
    ask(cache, Sums(), part, None, [0])
    ask(cache, Sums(), part, Shifted(), [0])
    ask(cache, Sums(), Split("test", part.inputs[:9], part.labels[:9], "4" * 64), None, [0])
    assert len(list(cache.folder.glob("*.f32"))) == 3


def test_size_is_known_before_and_progress_counts(cache):
    teacher, part, seen = Sums(), split(), []
    cost = cache.cost(teacher, part, Shifted(), [0, 1])
    assert (cost.images, cost.size_bytes) == (10_000, 10_000 * 12)
    assert not cache.folder.exists()
    ask(cache, teacher, part, Shifted(), [0, 1], progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 10_000)
    assert seen[-1] == (10_000, 10_000)
    assert seen == sorted(seen)
    assert next(cache.folder.glob("*.f32")).stat().st_size == cost.size_bytes


def test_a_stop_keeps_what_is_finished(cache):
    teacher, part = Sums(), split()
    with pytest.raises(Interrupted, match="2048 of 5000"):
        ask(cache, teacher, part, Shifted(), [0], stop=lambda: sum(teacher.asked) > 0)
    teacher.asked.clear()
    found = ask(cache, teacher, part, Shifted(), [0])
    assert sum(teacher.asked) == 5000 - 2048
    assert np.array_equal(found, expected(part, [0]).astype(np.float32))


def test_what_a_stopped_run_had_yet_to_ask_is_not_asked_for_it(cache):
    teacher, part = Sums(), split(3000)
    with pytest.raises(Interrupted):  # in the second of its forty views
        ask(cache, teacher, part, Shifted(), range(40), stop=lambda: sum(teacher.asked) > 3000)
    assert [cache.cost(teacher, part, Shifted(), seeds).images for seeds in ([0], [0, 1], [5])] == [0, 952, 3000]
    for seeds in ([5], [0, 1]):
        assert np.array_equal(ask(cache, teacher, part, Shifted(), seeds), expected(part, seeds).astype(np.float32))
    assert cache.cost(teacher, part, Shifted(), range(40)).images == 37 * 3000


def test_what_is_written_over_is_no_longer_spoken_of(cache):
    """A stopped run's half of a view gives way to another run's, which is killed before its first block is finished."""
    teacher, part = Sums(), split(3000)
    with pytest.raises(Interrupted):
        ask(cache, teacher, part, Shifted(), range(40), stop=lambda: sum(teacher.asked) > 3000)

    class Killed(Sums):
        def logits(self, batch):
            if len(self.asked) == 2:
                raise MemoryError
            return super().logits(batch)

    with pytest.raises(MemoryError):
        ask(cache, Killed(), part, Shifted(), [5])
    assert np.array_equal(ask(cache, teacher, part, Shifted(), [0, 1]), expected(part, [0, 1]).astype(np.float32))


@pytest.mark.parametrize(
    "damage", ["short", "no file", "torn marker", "other shape", "no marker", "one bit", "rows below nothing"]
)
def test_damage_is_answered_again(cache, damage):
    teacher, part = Sums(), split(300)
    good = np.array(ask(cache, teacher, part, Shifted(), [0, 1]))
    data, marker = next(cache.folder.glob("*.f32")), next(cache.folder.glob("*.json"))
    if damage == "short":
        os.truncate(data, 4001)
    elif damage == "no file":
        data.unlink()
    elif damage == "torn marker":
        marker.write_text(marker.read_text()[:10])
    elif damage == "other shape":
        marker.write_text(json.dumps({"seeds": [0], "samples": 300, "classes": 9, "rows": 300}))
    elif damage == "one bit":
        content = bytearray(data.read_bytes())
        content[len(content) // 2 + 3] ^= 0x40
        data.write_bytes(bytes(content))
    elif damage == "rows below nothing":
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"rows": -5}))
    else:
        marker.unlink()
        data.write_bytes(b"x" * data.stat().st_size)
    assert np.array_equal(ask(cache, teacher, part, Shifted(), [0, 1]), good)


def test_what_follows_a_damaged_block_is_answered_again_and_nothing_else(cache):
    teacher, part = Sums(), split(5000)  # three blocks a seed
    good = np.array(ask(cache, teacher, part, Shifted(), [0, 1]))
    data = next(cache.folder.glob("*.f32"))
    content = bytearray(data.read_bytes())
    content[12 * (5000 + 2048 + 7)] ^= 1  # in the second block of the second seed
    data.write_bytes(bytes(content))
    teacher.asked.clear()
    assert np.array_equal(ask(cache, teacher, part, Shifted(), [0, 1]), good)
    assert sum(teacher.asked) == 5000 - 2048


def test_answers_that_are_no_numbers_are_refused(cache):
    class Broken(Sums):
        def logits(self, batch):
            return super().logits(batch) * float("nan")

    with pytest.raises(ConfigurationError, match="logits are NaN or infinite"):
        ask(cache, Broken(), split(300), None, [0])


def test_a_full_disk_is_said_before_anything_is_written(cache, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: _Usage)
    with pytest.raises(MissingError, match="take 600 B"):
        ask(cache, Sums(), split(50), None, [0])
    assert not list(cache.folder.glob("*.f32"))


class _Usage:
    free = 10


SLOW = """
import sys, time
from pathlib import Path
from {module} import Shifted, Sums, split
from edgekd.teachers.cache import TeacherCache

class Slow(Sums):
    def logits(self, batch):
        time.sleep({pause} if len(self.asked) < {calls} else 3600)
        return super().logits(batch)

TeacherCache(Path(sys.argv[1])).outputs(Slow(), split(), Shifted(), [0, 1])
"""


def process(tmp_path, folder, pause: float, calls: int) -> subprocess.Popen:
    """Answers so many calls, and hangs in the next."""
    source = textwrap.dedent(SLOW.format(module="test_cache", pause=pause, calls=calls))
    (tmp_path / "slow.py").write_text(source)
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])  # noqa: PTH120  # a plain string for the environment
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "slow.py"), str(folder)], env={**os.environ, "PYTHONPATH": path}
    )


@pytest.mark.slow
def test_a_killed_process_costs_only_its_last_block(cache, tmp_path):
    running = process(tmp_path, cache.folder, 0.0, calls=12)  # one block and a half
    deadline = time.monotonic() + 300
    while not list(cache.folder.glob("*.json")):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    teacher, part = Sums(), split()
    found = ask(cache, teacher, part, Shifted(), [0, 1])
    assert sum(teacher.asked) == 10_000 - cache_module._BLOCK
    assert np.array_equal(found, expected(part, [0, 1]).astype(np.float32))


@pytest.mark.slow
def test_two_processes_answer_once(cache, tmp_path):
    running = process(tmp_path, cache.folder, 0.02, calls=1000)
    deadline = time.monotonic() + 300
    while not list(cache.folder.glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    teacher, part = Sums(), split()
    found = ask(cache, teacher, part, Shifted(), [0, 1])  # waits for the other one
    assert running.wait() == 0
    assert not teacher.asked
    assert np.array_equal(found, expected(part, [0, 1]).astype(np.float32))


SOURCE = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
"""


@pytest.fixture
def open_teacher(tmp_path):
    (tmp_path / "opened.py").write_text(SOURCE)
    torch.manual_seed(0)
    options = {"module": "opened.py:small", "mean": [4.0], "std": [2.0]}
    teacher = TorchTeacher.model_validate(options, context={"folder": tmp_path})
    teacher.logits(torch.zeros(1, 1, 2, 2))
    return teacher


def test_points_are_answered_in_the_same_pass_and_kept_as_float16(cache, open_teacher):
    part, view = split(300), Shifted()
    points = [Point(name="1", shape=(4, 2, 2)), Point(name="penultimate", shape=(4,))]
    cost = cache.cost(open_teacher, part, view, [0, 1], points)
    assert (cost.images, cost.size_bytes) == (600, 600 * (3 * 4 + 16 * 2 + 4 * 2))
    found = cache.outputs(open_teacher, part, view, [0, 1], points)
    assert {name: (f.shape, f.dtype) for name, f in found.features.items()} == {
        "1": ((2, 300, 4, 2, 2), np.float16),
        "penultimate": ((2, 300, 4), np.float16),
    }
    network = open_teacher.network()
    pixels = (view(torch.from_numpy(part.inputs), np.arange(300), 1) - 4) / 2
    with torch.no_grad():
        inner = network[1](network[0](pixels))
        np.testing.assert_allclose(found.features["1"][1], inner.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.logits[1], network(pixels).numpy(), rtol=1e-4, atol=1e-3)
    assert sum(path.stat().st_size for path in cache.folder.glob("*.f*")) == cost.size_bytes


def test_points_are_added_to_logits_and_logits_answered_once(cache, open_teacher):
    part, point = split(100), Point(name="penultimate", shape=(4,))
    first = np.array(cache.outputs(open_teacher, part, Shifted(), [0, 1]).logits)
    marked = next(cache.folder.glob("*.f32")).stat().st_mtime_ns
    assert cache.cost(open_teacher, part, Shifted(), [0, 1], [point]).size_bytes == 200 * 8
    found = cache.outputs(open_teacher, part, Shifted(), [0, 1, 2], [point])
    assert found.features["penultimate"].shape == (3, 100, 4)
    assert np.array_equal(found.logits[:2], first)
    assert next(cache.folder.glob("*.f32")).stat().st_mtime_ns > marked  # one seed was added
    assert cache.cost(open_teacher, part, Shifted(), [0, 1, 2], [point]).images == 0


def test_a_teacher_of_logits_alone_has_no_points(cache):
    with pytest.raises(ConfigurationError, match="provides only logits"):
        cache.outputs(Sums(), split(10), None, [0], [Point(name="1", shape=(4,))])


@pytest.mark.parametrize(("weight", "reason"), [(1e6, "too large for float16"), (float("nan"), "NaN or infinite")])
def test_activations_beyond_float16_are_refused(cache, open_teacher, weight, reason):
    open_teacher.network()[0].weight.data.fill_(weight)
    with pytest.raises(ConfigurationError, match=reason):
        cache.outputs(open_teacher, split(10), None, [0], [Point(name="1", shape=(4, 2, 2))])
