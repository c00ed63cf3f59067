"""A teacher for each head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.students.heads.regression import standardised
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.binding import bind, rated
from edgekd.teachers.heads import HeadsTeacher
from edgekd.teachers.packing import unpacked
from edgekd.teachers.torch import TorchTeacher
from edgekd.testing.fakes.spots import NUMBERS, SpotTask

TASK = Shapes(train=40, test=8, validation=8, calibration=8, side=32, labelled=0.7)
SOURCE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, {channels}, 4, 4)
    def forward(self, x):
        return self.conv(x)
def build():
    torch.manual_seed(0)
    return Net()
"""


def teacher(folder: Path, channels: int = 4, head: str = "mask") -> HeadsTeacher:
    (folder / f"net{channels}.py").write_text(SOURCE.format(channels=channels))
    of = {head: {"kind": "torch", "module": f"net{channels}:build"}}
    return HeadsTeacher.model_validate({"of": of}, context={"folder": folder})


def test_it_answers_for_its_heads_alone(tmp_path: Path) -> None:
    bound = bind(teacher(tmp_path), TASK.spec)
    assert isinstance(bound, HeadsTeacher)
    rows = bound.logits(torch.zeros(3, 3, 32, 32))
    assert rows.shape == (3, bound.classes)
    assert list(unpacked(rows, bound.packing)) == ["mask"]
    assert bound.digest() == bind(teacher(tmp_path), TASK.spec).digest()
    score = rated(bound, TASK)
    assert score is not None
    assert score.metric == "mIoU"
    assert 0 < score.value < 0.5


def test_a_head_that_is_not_there_is_reported_before_any_teacher_is_trained(tmp_path: Path) -> None:
    reported: list[object] = []
    given = HeadsTeacher.model_validate({"of": {"mask": {"kind": "train", "width": 8}, "thngs": {"kind": "train"}}})
    with pytest.raises(UnknownName, match="did you mean `things`"):
        given.prepare(TASK, tmp_path, reported.append, lambda: False)
    assert not reported


def test_a_teacher_of_the_whole_picture_is_scored_by_the_samples_that_have_its_label(tmp_path: Path) -> None:
    source = SOURCE.replace("self.conv(x)", "self.conv(x).mean((2, 3))").format(channels=3)
    (tmp_path / "scenes.py").write_text(source)
    of = {"scene": {"kind": "torch", "module": "scenes:build"}}
    score = rated(bind(HeadsTeacher.model_validate({"of": of}, context={"folder": tmp_path}), TASK.spec), TASK)
    assert score is not None
    assert score.metric == "top1"


def test_several_teachers_of_one_mask_are_refused_in_words(tmp_path: Path) -> None:
    teacher(tmp_path)
    member = {"kind": "torch", "module": "net4:build"}
    of = {"mask": {"kind": "ensemble", "members": [member, member]}}
    with pytest.raises(ConfigurationError, match="has raw outputs for `mask`"):
        bind(HeadsTeacher.model_validate({"of": of}, context={"folder": tmp_path}), TASK.spec)


def test_heads_in_another_order_are_another_teacher(tmp_path: Path) -> None:
    teacher(tmp_path)
    member = {"kind": "torch", "module": "net4:build"}
    written = {"mask": member, "rest": member}
    one, two = (
        HeadsTeacher.model_validate({"of": of}, context={"folder": tmp_path})
        for of in (written, dict(reversed(written.items())))
    )
    assert one.digest() != two.digest()  # their answers are packed otherwise, and are kept under the digest


def test_other_classes_and_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\(2, 5, 8, 8\) for segmentation `mask`"):
        bind(teacher(tmp_path, 5), TASK.spec)
    with pytest.raises(UnknownName, match="masc"):
        bind(teacher(tmp_path, head="masc"), TASK.spec)
    with pytest.raises(ConfigurationError, match="one classification head"):
        bind(teacher(tmp_path), Shapes(train=8, test=4, validation=4, calibration=4, side=32, heads=("scene",)).spec)


@pytest.mark.slow
def test_teachers_are_trained_here_from_the_samples_that_carry_a_label(tmp_path: Path) -> None:
    member = {"kind": "train", "epochs": 1, "width": 8, "batch_size": 8}
    made = HeadsTeacher.model_validate({"of": {"things": member, "scene": member, "mask": member}})
    bound = bind(made.prepare(TASK, tmp_path, lambda _: None, lambda: False), TASK.spec)
    score = rated(bound, TASK)
    assert score is not None
    assert set(score.parts) == {"scene top1", "things mAP", "mask mIoU"}


def test_numbers_of_a_persons_network_are_in_the_labels_own_units(tmp_path: Path) -> None:
    answer = "torch.stack([1000 + 10 * x.mean((1, 2, 3)), x.flatten(1).std(1, correction=0) / 100], 1)"
    (tmp_path / "answers.py").write_text(SOURCE.replace("self.conv(x)", answer).format(channels=1))
    written = {"module": "answers:build", "mean": [0.0], "std": [1.0]}
    task = SpotTask([NUMBERS])
    made = TorchTeacher.model_validate(written, context={"folder": tmp_path})
    alone, bound = made.digest(), bind(made, task.spec)
    assert bound.digest() != alone
    rows = bound.logits(torch.from_numpy(task.split("validation").inputs).float())
    known = torch.from_numpy(task.split("validation").labels["numbers"])
    wanted = standardised(NUMBERS, known)
    torch.testing.assert_close(rows[~known.isnan()], wanted[~known.isnan()], rtol=1e-3, atol=1e-3)
    score = rated(bound, task)
    assert score is not None
    assert score.value == pytest.approx(1, abs=1e-4)
    other = bind(made, SpotTask([NUMBERS.but(std=(60.0, 0.2))]).spec)
    assert other.digest() != bound.digest(), "what it answers is kept under the digest"


def test_labels_and_numbers_have_teachers_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "flags.py").write_text(SOURCE.replace("self.conv(x)", "self.conv(x).mean((2, 3))").format(channels=3))
    of = {"labels": {"kind": "torch", "module": "flags:build"}}
    task = SpotTask()
    bound = bind(HeadsTeacher.model_validate({"of": of}, context={"folder": tmp_path}), task.spec)
    score = rated(bound, task)
    assert score is not None
    assert score.metric == "macro AP"
