"""Labels and answers of several heads as rows, and specs that keep the identity they had."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.rows import IGNORED, NOTHING, UNKNOWN, empty_rows, has_label, label_rows, output_rows, outputs_of

SCENE = HeadSpec(name="scene", classes=3)
THINGS = HeadSpec(name="things", kind="detection", classes=2, objects=5)
MASK = HeadSpec(name="mask", kind="segmentation", classes=4)
SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 8, 6)), head=SCENE, more=(THINGS, MASK), data="0" * 64)


def test_a_classification_task_is_written_as_it_always_was() -> None:
    spec = TaskSpec(name="t", input=InputSpec(shape=(3, 8, 8)), head=HeadSpec(classes=3), data="0" * 64)
    written = spec.model_dump(mode="json")
    assert "more" not in written
    assert set(written["head"]) == {"name", "kind", "classes", "labels"}
    assert spec.digest() == "c37807127783dd76f9ece5cb42a59d7939a60fe75d685ffed3e508dafb19aa92"
    assert spec.plain


def test_several_heads_are_written_and_read_back() -> None:
    assert TaskSpec.model_validate(SPEC.model_dump(mode="json")) == SPEC
    assert not SPEC.plain
    assert not SPEC.but(head=MASK, more=()).plain


@pytest.mark.parametrize(
    ("head", "more"), [(SCENE, (SCENE,)), (HeadSpec(name="a.b", classes=2), (MASK,))], ids=["twice", "dot"]
)
def test_names_that_can_be_no_outputs_are_refused(head: HeadSpec, more: tuple[HeadSpec, ...]) -> None:
    with pytest.raises(ValidationError, match="head"):
        SPEC.but(head=head, more=more)


def test_objects_belong_to_detection() -> None:
    with pytest.raises(ValidationError, match="objects"):
        HeadSpec(name="x", kind="detection", classes=2)
    with pytest.raises(ValidationError, match="objects"):
        HeadSpec(name="x", classes=2, objects=3)


def test_a_pixel_can_not_have_more_classes_than_a_mask_holds() -> None:
    assert HeadSpec(name="x", kind="segmentation", classes=255).classes == IGNORED
    with pytest.raises(ValidationError, match="256 classes"):
        HeadSpec(name="x", kind="segmentation", classes=256)


def test_outputs_are_in_the_heads_order() -> None:
    assert [(output.name, output.dtype, output.shape) for output in outputs_of(SPEC)] == [
        ("scene", "float32", (3,)),
        ("things.boxes", "float32", (5, 4)),
        ("things.scores", "float32", (5,)),
        ("things.classes", "int32", (5,)),
        ("mask", "uint8", (8, 6)),
    ]
    arrays = [np.full((2, *output.shape), at, output.dtype) for at, output in enumerate(outputs_of(SPEC))]
    rows = output_rows(SPEC, arrays)
    assert rows.dtype == empty_rows(SPEC, 0).dtype
    assert (rows["things.classes"] == 3).all()


def test_labels_say_who_has_one() -> None:
    things = np.zeros((3, 2, 6), np.float32)
    things[0, :, 4], things[1, :, 4] = UNKNOWN, NOTHING
    mask = np.full((3, 8, 6), IGNORED, np.uint8)
    mask[2, 0, 0] = 1
    rows = label_rows(SPEC.heads, {"scene": np.array([-1, 0, 2]), "things": things, "mask": mask})
    assert has_label(SCENE, rows["scene"]).tolist() == [False, True, True]
    assert has_label(THINGS, rows["things"]).tolist() == [False, True, True]
    assert has_label(MASK, rows["mask"]).tolist() == [False, False, True]
