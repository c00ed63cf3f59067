"""`coco`: pictures with boxes, and optionally masks, from COCO annotation files, read by pycocotools.

::

    task:
      kind: coco
      train: annotations/train.json
      test: annotations/val.json
      images: images             # file names in the annotations are relative to it
      size: [320, 320]
      heads: [things, mask]

Crowds are ignored in boxes and masks. The mask's class 0 is the background; if objects overlap, the smaller one is in
front.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from edgekd.code_references import ExistingFile, ExistingFolder
from edgekd.errors import ConfigurationError, MissingError
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.images.pictures import Annotation, Pictures, Thing
from edgekd.tasks.rows import IGNORED

__all__ = ["Coco"]


class Coco(Pictures):
    """Options of `coco`, and those shared with other tasks of annotated pictures."""

    train: ExistingFile
    test: ExistingFile
    images: ExistingFolder
    test_images: ExistingFolder | None = None  # the same folder where left out
    heads: Annotated[tuple[Literal["things", "mask"], ...], Field(min_length=1)] = ("things",)
    _read_files: dict[str, Any] = PrivateAttr(default_factory=dict)

    def _title(self) -> str:
        return self.train.stem

    def _kind(self) -> str:
        return "coco"

    def _heads(self) -> tuple[HeadSpec, ...]:
        names = tuple(category["name"] for category in self._categories())
        known = {
            "things": HeadSpec(name="things", kind="detection", classes=len(names), labels=names, objects=self.objects),
            "mask": HeadSpec(name="mask", kind="segmentation", classes=1 + len(names), labels=("background", *names)),
        }
        return tuple(known[name] for name in self.heads)

    def _annotations(self, part: str) -> Sequence[Annotation]:
        source, folder = self._source(part), self.images
        if part == "test" and self.test_images is not None:
            folder = self.test_images
        number = {category["id"]: place for place, category in enumerate(self._categories())}
        found = []
        for image in sorted(source.getImgIds()):
            about = source.imgs[image]
            given = source.loadAnns(source.getAnnIds(imgIds=[image]))
            unknown = [each["category_id"] for each in given if each["category_id"] not in number]
            if unknown:
                raise ConfigurationError.one(
                    f"{getattr(self, part).name}: category {unknown[0]} is not among the training categories",
                    "train and test must have the same categories",
                )
            try:
                mask = self._mask(source, about, given, number) if "mask" in self.heads else None
                things = tuple(_things(given, number)) if "things" in self.heads else ()
                found.append(Annotation(folder / about["file_name"], things, mask))
            except Exception as error:  # a field that isn't there, or no number; pycocotools raises bare exceptions too
                raise ConfigurationError.one(
                    f"{getattr(self, part)}: image {image} can't be read: {type(error).__name__}: {error}",
                    "check its entry and its annotations",
                ) from error
        return found

    @staticmethod
    def _mask(
        source: Any, about: dict[str, Any], given: list[dict[str, Any]], number: dict[int, int]
    ) -> NDArray[np.uint8]:
        mask = np.zeros((about["height"], about["width"]), np.uint8)
        for each in sorted(given, key=lambda each: -float(each.get("area") or 0.0)):
            if each.get("segmentation"):
                inside = source.annToMask(each).astype(bool)
                mask[inside] = IGNORED if each.get("iscrowd") else 1 + number[each["category_id"]]
        return mask

    def _categories(self) -> list[dict[str, Any]]:
        """Return the categories of the training annotations, by id."""
        categories = self._source("train").dataset.get("categories", [])
        if not categories:
            raise ConfigurationError.one(f"{self.train.name}: it has no categories", "check the annotation file")
        if any(not {"id", "name"} <= set(category) for category in categories):
            raise ConfigurationError.one(f"{self.train.name}: a category has no id or no name", "check the file")
        if "mask" in self.heads and len(categories) >= IGNORED:
            raise ConfigurationError.one(
                f"{self.train.name} has {len(categories)} categories, and a mask can hold {IGNORED - 1}",
                "leave `mask` out of heads, or give a file with fewer categories",
            )
        return sorted(categories, key=lambda category: int(category["id"]))

    def _source(self, part: str) -> Any:
        if part not in self._read_files:
            try:
                from pycocotools.coco import COCO
            except ImportError as error:
                raise MissingError("coco files need pycocotools", "pip install pycocotools") from error
            path = self.train if part == "train" else self.test
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                    self._read_files[part] = COCO(str(path))
            except (ValueError, KeyError, TypeError, AssertionError) as error:
                raise ConfigurationError.one(
                    f"{path} can't be read as COCO annotations: {type(error).__name__}: {error}", "check the file"
                ) from error
            if not self._read_files[part].anns:
                raise ConfigurationError.one(f"{path} has no annotations", "give a file with boxes")
        return self._read_files[part]


def _things(given: list[dict[str, Any]], number: dict[int, int]) -> Iterator[Thing]:
    for each in given:
        x, y, width, height = (float(value) for value in each["bbox"])
        if not (width <= 0 or height <= 0):
            yield Thing((x, y, x + width, y + height), number[each["category_id"]], bool(each.get("iscrowd", 0)))
