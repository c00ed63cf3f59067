"""A person's network with several heads says the same however it is asked: alone, looked into, or through the cache."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import torch

from edgekd.distill.teacher_source import live_teacher
from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadSpec, InputSpec, Split, TaskSpec
from edgekd.teachers.binding import bind
from edgekd.teachers.cache import TeacherCache
from edgekd.teachers.observed import observing, teacher_layout
from edgekd.teachers.torch import TorchTeacher

SOURCE = """
    from torch import nn

    class Heads(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.trunk, self.kind = nn.Conv2d(1, 4, 3, 2, 1), kind
            self.labels, self.numbers, self.spare = (nn.Linear(64, width) for width in (3, 2, 5))
            self.heat, self.box = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images):
            seen = self.trunk(images).relu()
            flat = seen.flatten(1)
            if self.kind == "tuple":
                return self.heat(seen), self.box(seen)
            return {"spare": self.spare(flat), "numbers": 1000 + self.numbers(flat), "labels": self.labels(flat)}

    def mapping():
        return Heads("mapping")

    def pair():
        return Heads("tuple")
"""
LABELS = HeadSpec(name="labels", kind="multilabel", classes=3)
NUMBERS = HeadSpec(name="numbers", kind="regression", classes=2, mean=(1000.0, 900.0), std=(2.0, 50.0))
THINGS = HeadSpec(name="things", kind="detection", classes=2, objects=4)
BATCH = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()


def spec(*heads: HeadSpec) -> TaskSpec:
    return TaskSpec(
        name="heads",
        input=InputSpec(shape=(1, 8, 8), mean=(120.0,), std=(60.0,)),
        head=heads[0],
        more=heads[1:],
        data="0" * 64,
    )


@pytest.fixture
def made(tmp_path):
    (tmp_path / "heads.py").write_text(textwrap.dedent(SOURCE))

    def make(function, *heads):
        torch.manual_seed(0)
        teacher = TorchTeacher.model_validate({"module": f"heads.py:{function}"}, context={"folder": tmp_path})
        return bind(teacher, spec(*heads))

    return make


@pytest.mark.parametrize(
    ("function", "heads"), [("mapping", (LABELS, NUMBERS)), ("mapping", (NUMBERS, LABELS)), ("pair", (THINGS,))]
)
def test_it_says_the_same_however_it_is_asked(made, tmp_path, function, heads):
    teacher = made(function, *heads)
    answers = teacher.logits(BATCH)
    points = [teacher_layout(teacher, InputSpec(shape=(1, 8, 8))).at("trunk")]
    with observing(teacher, InputSpec(shape=(1, 8, 8)), points) as ask:
        looked, _ = ask(BATCH)
    with live_teacher(teacher, InputSpec(shape=(1, 8, 8)), points) as asked:
        online, _ = asked(0, torch.arange(6), BATCH)
    split = Split(name="train", inputs=BATCH.numpy(), labels=np.zeros(6, np.int64), digest="1" * 64)
    cache = TeacherCache(tmp_path / "cache")
    stored = torch.from_numpy(np.array(cache.outputs(teacher, split, None, (0,), points).logits[0]))
    for found in (looked, online, stored):
        torch.testing.assert_close(found, answers, rtol=1e-4, atol=1e-4)


def test_numbers_are_standardised_and_rows_are_in_the_tasks_order(made):
    one, other = made("mapping", LABELS, NUMBERS), made("mapping", NUMBERS, LABELS)
    answers, turned = one.logits(BATCH), other.logits(BATCH)
    assert [part.name for part in one.packing] == ["labels", "numbers"]
    torch.testing.assert_close(answers, torch.cat([turned[:, 2:], turned[:, :2]], 1))
    assert answers[:, 3].abs().max() < 5
    assert answers[:, 4].min() > 1
    assert one.digest() != other.digest()


def test_a_head_that_is_missing_is_reported_when_it_is_looked_into_too(made):
    teacher = made("mapping", LABELS)
    teacher._heads = (LABELS.but(name="tags"),)
    with (
        pytest.raises(ConfigurationError, match="where `tags` or `logits` was expected"),
        live_teacher(teacher, InputSpec(shape=(1, 8, 8))),
    ):
        pass
