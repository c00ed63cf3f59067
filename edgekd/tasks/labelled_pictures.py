"""Picture files with a class each: what the readers of folders and lists share.

Pictures are decoded once to a file in the cache (`picture_store`) and mapped from there, so that they may be more than
fits into memory. Which picture goes to which split is decided by the content of its file; of those that end as the same
pixels, the ones in test stay there, then those in validation.
"""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PrivateAttr

from edgekd.errors import ConfigurationError
from edgekd.records import Digest
from edgekd.tasks._protocol import PictureSpec
from edgekd.tasks.decoding import size_of
from edgekd.tasks.image_classification import Images
from edgekd.tasks.labelled import CarvedImages, LabelledImages, rounded
from edgekd.tasks.picture_store import Progress, looked_at, stored_pictures
from edgekd.tasks.splits import carve, digest_arrays
from edgekd.units import format_bytes

__all__ = ["Found", "LabelledPictures", "StoredImages", "class_order"]

Part = Literal["train", "validation", "test"]
_PARTS: tuple[Part, ...] = ("test", "validation", "train")  # as they lie in the file

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class Found(NamedTuple):
    """Picture files of each part that the source has, with the names of their classes."""

    parts: Mapping[Part, Sequence[tuple[Path, str]]]
    ignored: int  # files that are no pictures by their names


@dataclass(frozen=True)
class StoredImages(LabelledImages):
    """Labelled images of which hashes and sums are known: `stored_pictures` says what ``facts`` are."""

    facts: NDArray[np.void]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """As `LabelledImages.keys`."""
        return np.asarray(self.facts["pixels"][:, 0], np.uint64)

    @cached_property
    def digest(self) -> Digest:
        """Of shape, pixels and labels, in order."""
        return digest_arrays(np.asarray(self.inputs.shape), self.facts["pixels"], self.labels)

    def moments(self, per_channel: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """As `LabelledImages.moments`, exactly, from the sums."""
        count = self.inputs.size // (self.inputs.shape[1] if per_channel else 1)
        axes = 0 if per_channel else None
        totals = [np.atleast_1d(self.facts[name].sum(axes, dtype=np.uint64)).tolist() for name in ("sum", "squares")]
        # in whole numbers of any size: the difference of two large floats would be noise
        variances = [(count * squares - total**2) / count**2 for total, squares in zip(*totals, strict=True)]
        return rounded(total / count for total in totals[0]), rounded(variance**0.5 for variance in variances)

    def take(self, indices: NDArray[np.int64]) -> StoredImages:
        """As `LabelledImages.take`."""
        return StoredImages(self._inputs_of(indices), self.labels[indices], self.facts[indices])


class LabelledPictures(Images):
    """Options shared by tasks of picture files with a class each.

    ``size`` is height and width in pixels, or one number for both; left out, it is that of all pictures. ``fit: crop``
    takes the largest part in the middle that has the size's aspect, ``stretch`` all of a picture. ``test`` and
    ``validation`` are the shares carved out where the source has no such part. ``labels`` puts the classes in another
    order than that of their names.
    """

    size: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None,
        BeforeValidator(_square),
    ] = None
    fit: Literal["stretch", "crop"] = "crop"
    channels: Literal[1, 3] = 3
    test: Share = 0.2
    _found: Found | None = PrivateAttr(None)
    _read: dict[Part, StoredImages] | None = PrivateAttr(None)
    _files: dict[Part, list[tuple[Path, str]]] = PrivateAttr(default_factory=dict)
    _spec_of_picture: PictureSpec | None = PrivateAttr(None)
    _folder: Path | None = PrivateAttr(None)

    @abstractmethod
    def _list(self) -> Found:
        """Find the files. Raises ConfigurationError where they aren't laid out as expected."""

    @abstractmethod
    def _origin(self) -> Path:
        """The folder or file that says which pictures there are."""

    def prepare(self, progress: Progress, stop: Callable[[], bool]) -> str:
        """Decode what isn't decoded yet, and say what there is. Raises as `stored_pictures` does."""
        read, found = self._ready(progress, stop), self.listed()
        size = sum(images.inputs.nbytes for images in read.values())
        ignored = f"; {found.ignored:,} other files ignored" if found.ignored else ""
        count = sum(map(len, read.values()))
        return f"{count:,} pictures of {len(self._names())} classes, {format_bytes(size)} in {self._folder}{ignored}"

    def split_list(self) -> str:
        """Which picture is in which split, as a list that the task `image-csv` reads: path, label, split."""
        self._ready(_silent, _never)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("path", "label", "split"))
        rows.writerows((path.absolute(), name, part) for part in _PARTS for path, name in self._files[part])
        return text.getvalue()

    def listed(self) -> Found:
        """The files, none of them read. Raises ConfigurationError where they aren't laid out as expected."""
        if self._found is None:
            self._found = self._list()
        return self._found

    def _names(self) -> tuple[str, ...]:
        return self.labels or class_order({name for files in self.listed().parts.values() for _, name in files})

    def _picture(self) -> PictureSpec | None:
        self._ready(_silent, _never)
        return self._spec_of_picture

    def _carve(self) -> CarvedImages:
        read = self._ready(_silent, _never)
        return CarvedImages(
            what=self._title(),
            train=read["train"],
            test=lambda: read["test"],
            validation=read["validation"],
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )

    def _ready(self, progress: Progress, stop: Callable[[], bool]) -> dict[Part, StoredImages]:
        """The three parts, each in one stretch of the file, so that none has to be copied."""
        if self._read is not None:
            return self._read
        found, names = self.listed().parts, self._names()
        numbers = {name: number for number, name in enumerate(names)}
        listed = [(path, name, part) for part in _PARTS for path, name in found.get(part, ())]
        if unknown := sorted({name for _, name, _ in listed} - set(names)):
            raise ConfigurationError.one(
                f"{self._origin()} has the class `{unknown[0]}`, which `labels` doesn't name", "name every class"
            )
        files = [path for path, _, _ in listed]
        keys, sizes = looked_at(files, progress, stop, self._size_of)
        labels = np.asarray([numbers[name] for _, name, _ in listed], np.int64)
        parts = self._parted([part for _, _, part in listed], keys, labels)
        order = np.concatenate([parts[part] for part in _PARTS])
        self._files = {part: [listed[at][:2] for at in own] for part, own in parts.items()}
        spec = PictureSpec(size=self.size or self._one(sizes), fit=self.fit, mode="RGB" if self.channels == 3 else "L")
        stored, facts, folder = stored_pictures(
            str(self._origin()), spec, [files[at] for at in order], keys[order], progress, stop
        )
        images, start = StoredImages(stored, labels[order], facts), 0
        read = dict[Part, StoredImages]()
        for part in _PARTS:
            read[part] = images.take(np.arange(start, start + len(parts[part])))
            start += len(parts[part])
        self._spec_of_picture, self._read, self._folder = spec, read, folder.parents[1]
        return read

    def _parted(
        self, named: Sequence[Part], keys: NDArray[np.uint64], labels: NDArray[np.int64]
    ) -> dict[Part, NDArray[np.int64]]:
        """Indices of each part; what the source lacks is carved out of its training pictures."""
        parts = {part: np.flatnonzero(np.asarray(named) == part) for part in _PARTS}
        train = parts["train"]
        test = 0 if len(parts["test"]) else max(1, round(self.test * len(train)))
        validation = 0 if len(parts["validation"]) else max(1, round(self.validation * (len(train) - test)))
        carved = carve(keys[train], labels[train], [test, validation])
        for part, own in zip(_PARTS, (train[chosen] for chosen in carved), strict=True):
            if part == "train" or not len(parts[part]):
                parts[part] = own
        for part in _PARTS:
            if not len(parts[part]):
                raise ConfigurationError.one(
                    f"{self._origin()}: no picture is left for {part}, of {len(named)} in all",
                    "lower `test` or `validation`, or give more pictures",
                )
        # pictures that are also in test or validation are left out: last, so that the others are a view of the file
        train, elsewhere = parts["train"], np.concatenate([keys[parts["test"]], keys[parts["validation"]]])
        twins = np.isin(keys[train], elsewhere)
        return {**parts, "train": np.concatenate([train[~twins], train[twins]])}

    def _size_of(self, data: bytes, path: Path) -> tuple[int, int] | None:
        return size_of(data, path) if self.size is None else None

    def _one(self, sizes: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
        found = sorted({size for size in sizes if size is not None}, key=lambda size: size[0] * size[1])
        if len(found) > 1:
            least, most = (f"{height} x {width}" for height, width in (found[0], found[-1]))
            raise ConfigurationError.one(
                f"{self._origin()}: pictures are from {least} to {most} (height x width)",
                "give the size that a model sees: size: 128 in the task, or --input 3x128x128 of edgekd export",
            )
        return found[0]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes as they are numbered: by their letters, or as numbers where all are."""
    listed = sorted(names)
    return tuple(sorted(listed, key=int) if all(name.isdecimal() for name in listed) else listed)


def _silent(_done: int, _total: int, _note: str) -> None:
    """Where nobody watches."""


def _never() -> bool:
    return False
