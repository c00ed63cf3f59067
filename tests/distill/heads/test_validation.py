"""What a head can't have is refused before anything trains, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.distill.heads.validation import head_problems
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.shapes import Shapes
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.student import StudentTeacher

ALL = ("scene", "things", "mask")
HEADS = {"all": ALL, "detection": ALL[1:2], "segmentation": ALL[2:]}
TASKS = {
    name: Shapes.model_validate(
        {"train": 16, "test": 4, "validation": 4, "calibration": 4, "side": 32, "heads": heads, "labelled": 0.7}
    )
    for name, heads in HEADS.items()
}


def student(task: Shapes, seed: int, **options: Any) -> Student:
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1], **options}, "stages": 2})
    return new_student(family, family.space(task.spec).at(0), task.spec, seed)


def context(folder: Path, task: Shapes, teacher: Teacher | None) -> StageContext:
    return StageContext(
        task=task,
        teacher=teacher,
        device=None,
        backend=None,
        folder=folder / "stage",
        cache=folder / "cache",
        seed=0,
        progress=lambda _: None,
        stop=lambda: False,
    )


def stage(**options: Any) -> Distill:
    return Distill.model_validate({"epochs": 1, "batch_size": 8, "views": 1, "precision": "float32", **options})


@pytest.mark.slow
@pytest.mark.parametrize("heads", HEADS)
def test_losses_on_logits_and_maps_are_not_refused(heads: str, tmp_path: Path) -> None:
    task = TASKS[heads]
    own, given = student(task, 0), context(tmp_path, task, StudentTeacher(student(task, 1), "teacher"))
    for loss in ("ce", "kd", "dist", "fitnet", "attention", "similarity", "reviewkd"):
        assert not stage(loss={loss: {}}).check(own, given)
    assert bool(stage(loss="dkd").check(own, given)) == (heads != "segmentation")


@pytest.mark.parametrize(
    ("heads", "loss", "words"),
    [
        ("detection", {"kd": {"standardize": True}}, "`things`: a logit of 0 is a probability of one half"),
        ("detection", {"dkd": {}}, "it has no form for the detection head `things`"),
        ("detection", {"mlkd": {}}, "it has no form for the detection head `things`"),
        ("segmentation", {"mlkd": {}}, "for the segmentation head `mask` every cell is an output"),
    ],
)
def test_losses_that_say_nothing_of_a_map_are_refused(
    heads: str, loss: dict[str, Any], words: str, tmp_path: Path
) -> None:
    task = TASKS[heads]
    given = context(tmp_path, task, StudentTeacher(student(task, 1), "teacher"))
    (problem,) = stage(loss=loss).check(student(task, 0), given)
    assert words in problem.message


def test_two_classes_have_no_standardized_logits() -> None:
    task = Shapes.model_validate({"train": 8, "test": 2, "validation": 2, "calibration": 2, "heads": ["scene"]})
    scene = task.spec.heads[0]
    loss = Combined.model_validate({"kd": {"standardize": True}})
    for classes, refused in ((2, True), (3, False)):
        spec = task.spec.but(head=scene.but(classes=classes, labels=()))
        found = head_problems(student(task, 0), spec, (), "none", 0.0, None, loss)
        assert ["only the order" in problem.message for problem in found] == [True] * refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 0.1}, "smoothed"),
        ({"loss": {"ce": {"label_smoothing": 0.1}}}, "smoothed"),
        ({"augment": {"rotate": 10}}, "be moved along with these augmentations"),
        ({"balance": "gradnorm", "freeze": ["blocks"]}, "frozen"),
    ],
)
def test_what_heads_can_not_have_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    task = TASKS["all"]
    problems = stage(**{"loss": "ce", **options}).check(student(task, 0), context(tmp_path, task, None))
    assert [words in problem.message for problem in problems] == [True]


def test_a_detector_of_another_stride_can_not_teach(tmp_path: Path) -> None:
    task = TASKS["all"]
    given = context(tmp_path, task, StudentTeacher(student(task, 1, stem_stride=[4]), "coarse"))
    (problem,) = stage().check(student(task, 0), given)
    assert "`things` has 16 x 16 cells, the teacher's 8 x 8" in problem.message
    assert not stage(loss="ce").check(student(task, 0), given), "where it isn't asked, it doesn't matter"
