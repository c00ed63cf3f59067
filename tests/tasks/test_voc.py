"""PASCAL VOC's layout as a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.tasks._protocol import Task
from edgekd.tasks.images.voc import Voc
from edgekd.testing.contracts.task import TaskContract

_XML = (
    "<annotation><object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>11</xmin><ymin>5</ymin>"
    "<xmax>20</xmax><ymax>14</ymax></bndbox></object></annotation>"
)


def write(root: Path, kind: str = "cat") -> Path:
    rng = np.random.default_rng(0)
    for folder in ("ImageSets/Segmentation", "JPEGImages", "Annotations", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    sets: dict[str, list[str]] = {"train": [], "val": []}
    for at in range(30):
        name = f"2012_{at:03}"
        sets["train" if at < 24 else "val"].append(name)
        Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(_XML.format(kind=kind, hard=at % 2))
        mask = Image.fromarray(np.where(np.arange(40) < 20, 8, 255).astype(np.uint8)[None].repeat(20, 0), "P")
        mask.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        mask.save(root / "SegmentationClass" / f"{name}.png")
    for name, members in sets.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(members) + "\n")
    return root


def task(root: Path) -> Voc:
    return Voc.model_validate({"root": root, "size": (20, 20), "heads": ("things", "mask"), "calibration": 4})


class TestVoc(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        write(tmp_path)
        return lambda: task(tmp_path)


def test_boxes_are_counted_from_nought_and_difficult_ones_passed_over(tmp_path: Path) -> None:
    labels = task(write(tmp_path)).split("train").labels
    assert {tuple(row[0, :5]) for row in labels["things"]} == {(5.0, 4.0, 10.0, 14.0, 7.0)}
    assert set(labels["things"][:, 0, 5]) == {0.0, 1.0}
    assert labels["mask"][0, 0, 0] == 8
    assert labels["mask"][0, 0, 19] == 255


@pytest.mark.parametrize("words", ["<xmin>21</xmin>", "<xmin>nan</xmin>"])
def test_a_box_that_is_none_is_reported(tmp_path: Path, words: str) -> None:
    path = write(tmp_path) / "Annotations" / "2012_003.xml"
    path.write_text(path.read_text().replace("<xmin>11</xmin>", words))
    with pytest.raises(ConfigurationError, match=r"2012_003\.xml: an object of class cat has a box from"):
        task(tmp_path).split("train")


def test_an_unknown_encoding_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path) / "Annotations" / "2012_003.xml"
    path.write_text('<?xml version="1.0" encoding="foo"?>' + path.read_text())
    with pytest.raises(ConfigurationError, match=r"2012_003\.xml can't be read"):
        task(tmp_path).split("train")


def test_unknown_classes_and_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="cab"):
        task(write(tmp_path, "cab")).split("train")
    with pytest.raises(UnknownName, match="trian"):
        task(tmp_path).but(train="trian").split("train")


def test_a_folder_of_something_else_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no folder of Pascal VOC: it has no ImageSets/Segmentation"):
        task(tmp_path).split("train")
