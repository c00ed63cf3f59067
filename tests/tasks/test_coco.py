"""COCO annotation files as a task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import Task
from edgekd.tasks.images.coco import Coco
from edgekd.tasks.rows import IGNORED
from edgekd.testing.contracts.task import TaskContract


def write(folder: Path, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for at in range(count):
        name = f"{seed}-{at}.png"
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "images" / name)
        images.append({"id": at + 1, "file_name": name, "height": 40, "width": 60})
        for kind, (x, y, w, h), crowd in ((7, (6, 4, 30, 20), 0), (3, (10, 8, 12, 8), 0), (7, (48, 30, 12, 10), 1)):
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": at + 1,
                    "category_id": kind,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": [outline],
                }
            )
    categories = [{"id": 7, "name": "leaf"}, {"id": 3, "name": "bug"}]
    path = folder / f"{seed}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def task(folder: Path, heads: tuple[str, ...] = ("things", "mask")) -> Coco:
    options = {"train": write(folder, 30, 1), "test": write(folder, 8, 2), "images": folder / "images"}
    return Coco.model_validate({**options, "size": (20, 30), "heads": heads, "calibration": 4, "objects": 5})


class TestCoco(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        return lambda: task(tmp_path)


def test_boxes_and_masks_go_with_the_size(tmp_path: Path) -> None:
    made = task(tmp_path)
    assert made.spec.heads[0].labels == ("bug", "leaf")
    assert made.spec.heads[1].labels == ("background", "bug", "leaf")
    labels = made.split("train").labels
    assert labels["things"][0].tolist() == [[3, 2, 18, 12, 1, 0], [5, 4, 11, 8, 0, 0], [24, 15, 30, 20, 1, 1]]
    mask = labels["mask"][0]
    assert mask[3, 4] == 2
    assert mask[5, 7] == 1  # the smaller one is in front
    assert mask[17, 27] == IGNORED
    assert mask[0, 0] == 0


def test_other_categories_in_the_test_file_are_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    about = json.loads(made.test.read_text())
    about["annotations"][0]["category_id"] = 99
    made.test.write_text(json.dumps(about))
    with pytest.raises(ConfigurationError, match="category 99"):
        made.split("test")


def changed(folder: Path, where: str, field: str, value: object) -> Coco:
    made = task(folder)
    about = json.loads(made.train.read_text())
    for entry in about[where]:
        entry[field] = value
        if value is None:
            del entry[field]
    made.train.write_text(json.dumps(about))
    return made


def test_of_a_box_counts_what_lies_in_the_picture(tmp_path: Path) -> None:
    labels = changed(tmp_path, "annotations", "bbox", [-6, 30, 18, 40]).split("train").labels["things"]
    assert labels[0, :, :4].tolist() == [[0, 15, 6, 20]] * 3
    labels = changed(tmp_path, "annotations", "bbox", [60, 0, 9, 9]).split("train").labels["things"]
    assert (labels[:, :, 4] == -1).all()


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ("annotations", "bbox", None),
        ("annotations", "bbox", [1, 2, 3]),
        ("annotations", "bbox", ["a", 2, 3, 4]),
        ("annotations", "bbox", [float("nan"), 2, 3, 4]),
        ("annotations", "segmentation", [[1, 2]]),
        ("annotations", "segmentation", {"counts": [0, 100], "size": [10, 10]}),
        ("images", "file_name", None),
        ("images", "height", None),
        ("categories", "name", None),
    ],
)
def test_what_can_not_be_read_is_reported(tmp_path: Path, where: str, field: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"1\.json|1-0\.png"):
        changed(tmp_path, where, field, value).split("train")


def test_a_file_without_annotations_and_one_with_too_many_categories_are_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    about = json.loads(made.train.read_text())
    made.train.write_text(json.dumps({**about, "annotations": []}))
    with pytest.raises(ConfigurationError, match="no annotations"):
        made.split("train")
    made = task(tmp_path)
    many = [{"id": number, "name": str(number)} for number in range(255)]
    made.train.write_text(json.dumps({**about, "categories": many}))
    with pytest.raises(ConfigurationError, match="255 categories, and a mask can hold 254"):
        _ = made.spec


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made = task(tmp_path)
    made.train.write_text("{")
    with pytest.raises(ConfigurationError, match=r"1\.json"):
        _ = made.spec
