"""`voc`: a folder in PASCAL VOC's layout (Everingham et al. 2010): boxes from XML, masks from palette PNG files.

::

    task: {kind: voc, root: VOC2012, size: [320, 320], train: train, test: val, heads: [things, mask]}

    ROOT/ImageSets/Main/SET.txt         names, one a line (ImageSets/Segmentation if a mask is asked for)
    ROOT/JPEGImages/NAME.jpg
    ROOT/Annotations/NAME.xml           boxes; those marked difficult are ignored
    ROOT/SegmentationClass/NAME.png     0 is the background, 255 is ignored
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import Field

from edgekd.code_references import ExistingFolder
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.images.pictures import Annotation, Pictures, Thing, read_mask

__all__ = ["VOC_CLASSES", "Voc"]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class Voc(Pictures):
    """Options of `voc`, and those shared with other tasks of annotated pictures. ``labels`` default to VOC's own."""

    root: ExistingFolder
    train: str = "train"
    test: str = "val"
    heads: Annotated[tuple[Literal["things", "mask"], ...], Field(min_length=1)] = ("things",)
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=254)] = VOC_CLASSES

    def _title(self) -> str:
        return self.root.name

    def _kind(self) -> str:
        return "voc"

    def _heads(self) -> tuple[HeadSpec, ...]:
        count = len(self.labels)
        known = {
            "things": HeadSpec(
                name="things", kind="detection", classes=count, labels=self.labels, objects=self.objects
            ),
            "mask": HeadSpec(name="mask", kind="segmentation", classes=1 + count, labels=("background", *self.labels)),
        }
        return tuple(known[name] for name in self.heads)

    def _annotations(self, part: str) -> Sequence[Annotation]:
        sets = self.root / "ImageSets" / ("Segmentation" if "mask" in self.heads else "Main")
        path = sets / f"{self.train if part == 'train' else self.test}.txt"
        if not path.is_file():
            if not sets.is_dir():
                raise ConfigurationError.one(
                    f"{self.root} is no folder of Pascal VOC: it has no {sets.relative_to(self.root)}",
                    "give the folder that holds Annotations, ImageSets and JPEGImages as `root`",
                )
            raise UnknownName("image set", path.stem, [each.stem for each in sorted(sets.glob("*.txt"))])
        names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        return [self._annotation(name) for name in names]

    def _annotation(self, name: str) -> Annotation:
        mask = self.root / "SegmentationClass" / f"{name}.png"
        return Annotation(
            picture=self.root / "JPEGImages" / f"{name}.jpg",
            things=self._things(self.root / "Annotations" / f"{name}.xml") if "things" in self.heads else (),
            mask=read_mask(mask) if "mask" in self.heads else None,
        )

    def _things(self, path: Path) -> tuple[Thing, ...]:
        try:
            tree = ElementTree.fromstring(path.read_bytes())
        except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
            raise ConfigurationError.one(f"{path} can't be read: {error}", "check the file") from error
        return tuple(self._thing(element, path) for element in tree.iter("object"))

    def _thing(self, element: ElementTree.Element, path: Path) -> Thing:
        kind = (element.findtext("name") or "").strip()
        if kind not in self.labels:
            raise UnknownName("class", kind, self.labels, remedy=f"in {path}; name all classes with `labels`")
        try:
            x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{side}") or "") for side in _SIDES)
        except ValueError as error:
            raise ConfigurationError.one(f"{path}: an object of class {kind} has no box", "check the file") from error
        if not (x1 <= x2 and y1 <= y2):
            raise ConfigurationError.one(
                f"{path}: an object of class {kind} has a box from {x1:g}, {y1:g} to {x2:g}, {y2:g}", "check the file"
            )
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        # VOC counts pixels from 1 and its boxes have their last pixel inside
        return Thing((x1 - 1, y1 - 1, x2, y2), self.labels.index(kind), difficult)


_SIDES = ("xmin", "ymin", "xmax", "ymax")
