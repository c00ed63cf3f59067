"""`mask-folder`: pictures in one folder, masks of the same names in another: a class number in every pixel.

::

    task: {kind: mask-folder, images: leaves/images, masks: leaves/masks, labels: [ground, leaf], size: [128, 128]}

Masks are grey or palette PNG files; 255 is ignored. Without ``test_images`` a share of the pictures, chosen by content,
is the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from edgekd.code_references import ExistingFolder
from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.images.decoding import PICTURE_SUFFIXES
from edgekd.tasks.images.pictures import Annotation, Pictures, read_mask
from edgekd.tasks.splits import carve, content_keys

__all__ = ["MaskFolder"]


class MaskFolder(Pictures):
    """Options of `mask-folder`, and those shared with other tasks of annotated pictures."""

    images: ExistingFolder
    masks: ExistingFolder
    test_images: ExistingFolder | None = None
    test_masks: ExistingFolder | None = None
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # the share, where there is no folder for it
    labels: Annotated[tuple[str, ...], Field(min_length=2, max_length=255)]  # the first is the background's

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.test_images is None) != (self.test_masks is None):
            raise ValueError("test_images and test_masks belong together: give both, or neither")
        return self

    def _title(self) -> str:
        return self.images.parent.name if self.images.name in ("images", "train") else self.images.name

    def _kind(self) -> str:
        return "mask-folder"

    def _heads(self) -> tuple[HeadSpec, ...]:
        return (HeadSpec(name="mask", kind="segmentation", classes=len(self.labels), labels=self.labels),)

    def _annotations(self, part: str) -> Sequence[Annotation]:
        if self.test_images is not None and self.test_masks is not None:
            return _pairs(self.test_images, self.test_masks) if part == "test" else _pairs(self.images, self.masks)
        pairs = _pairs(self.images, self.masks)
        bytes_of = [np.frombuffer(pair.picture.read_bytes(), np.uint8) for pair in pairs]
        keys = np.asarray([content_keys(each[None])[0] for each in bytes_of], np.uint64)
        test, rest = carve(keys, np.zeros(len(keys), np.int64), [max(1, round(self.test * len(keys)))])
        return [pairs[at] for at in (test if part == "test" else rest)]


def _pairs(images: Path, masks: Path) -> list[Annotation]:
    found = []
    shown = (path for path in images.iterdir() if not path.name.startswith("."))
    for picture in sorted(path for path in shown if path.suffix.lower() in PICTURE_SUFFIXES):
        mask = masks / f"{picture.stem}.png"
        if not mask.is_file():
            raise ConfigurationError.one(f"{picture} has no mask {mask}", "masks are PNG files of the picture's name")
        found.append(Annotation(picture, mask=read_mask(mask)))
    return found
