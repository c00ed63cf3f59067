"""A folder of masks as a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import Task
from edgekd.tasks.images.mask_folder import MaskFolder
from edgekd.testing.contracts.task import TaskContract


def write(root: Path, highest: int = 1) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for at in range(40):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / "images" / f"{at}.png")
        mask = rng.integers(0, highest + 1, (16, 16), dtype=np.uint8)
        Image.fromarray(mask).save(root / "masks" / f"{at}.png")
    return root


def task(root: Path, **changes: object) -> MaskFolder:
    options = {"images": root / "images", "masks": root / "masks", "labels": ("ground", "leaf")}
    return MaskFolder.model_validate({**options, "size": (8, 8), "calibration": 4, **changes})


class TestMaskFolder(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        write(tmp_path)
        return lambda: task(tmp_path)


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="of class 3"):
        task(write(tmp_path, 3)).split("train")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"mean": 120.0}, "mean and std belong together"),
        ({"mean": 120.0, "std": 0.0}, "std must be above zero"),
    ],
)
def test_a_normalisation_is_given_whole(tmp_path: Path, written: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        task(write(tmp_path), **written)


def test_a_normalisation_has_one_value_or_one_a_channel(tmp_path: Path) -> None:
    made = task(write(tmp_path), mean=(1.0, 2.0), std=(1.0, 2.0))
    with pytest.raises(ConfigurationError, match="`mean` has 2 values, and the samples have 3 channels"):
        _ = made.spec


def test_pictures_and_masks_are_paired(tmp_path: Path) -> None:
    made = task(write(tmp_path))
    (tmp_path / "masks" / "7.png").unlink()
    with pytest.raises(ConfigurationError, match=r"7\.png has no mask"):
        made.split("train")


def test_a_picture_too_large_to_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(write(tmp_path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigurationError, match="can't be read as a picture"):
        made.split("train")


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    made = task(write(tmp_path))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "masks" / "7.png")
    with pytest.raises(ConfigurationError, match="one number a pixel"):
        made.split("train")


def test_a_mask_may_be_smaller_and_not_of_another_shape(tmp_path: Path) -> None:
    made, mask = task(write(tmp_path)), tmp_path / "masks" / "7.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
    made.split("train")
    Image.fromarray(np.zeros((9, 5), np.uint8)).save(mask)
    with pytest.raises(ConfigurationError, match=r"7\.png has 16 x 16 pixels, and its mask 9 x 5"):
        task(tmp_path).split("train")
