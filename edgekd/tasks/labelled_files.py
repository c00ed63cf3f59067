"""Files with a class each, pictures or recordings: what the readers of folders and lists share.

Files are decoded once to a file in the cache (`sample_store`) and mapped from there, so that they may be more than fits
into memory. Which file goes to which split is decided by its content; of those that end as the same sample, the ones in
test stay there, then those in validation.
"""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from edgekd.errors import ConfigurationError
from edgekd.records import Digest
from edgekd.tasks.images.classification import Images
from edgekd.tasks.labelled import CarvedImages, LabelledImages, rounded
from edgekd.tasks.sample_store import Progress, SampleDecoder, looked_at, stored_samples
from edgekd.tasks.splits import carve, digest_arrays
from edgekd.units import format_bytes

__all__ = ["Found", "LabelledFiles", "Part", "Share", "StoredSamples", "class_order", "parted"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("test", "validation", "train")
"""As they lie in the file of decoded samples."""

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Found(NamedTuple):
    """Files of each part that the source has, with the names of their classes."""

    parts: Mapping[Part, Sequence[tuple[Path, str]]]
    ignored: int  # files of other kinds by their names


@dataclass(frozen=True)
class StoredSamples(LabelledImages):
    """Labelled samples of which hashes and sums are known: `stored_samples` says what ``facts`` are."""

    facts: NDArray[np.void]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """As `LabelledImages.keys`."""
        return np.asarray(self.facts["pixels"][:, 0], np.uint64)

    @cached_property
    def digest(self) -> Digest:
        """Of shape, values and labels, in order."""
        return digest_arrays(np.asarray(self.inputs.shape), self.facts["pixels"], self.labels)

    def moments(self, per_channel: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """As `LabelledImages.moments`, exactly, from the sums."""
        count = self.inputs.size // (self.inputs.shape[1] if per_channel else 1)
        axes = 0 if per_channel else None
        totals = [np.atleast_1d(self.facts[name].sum(axes)).tolist() for name in ("sum", "squares")]
        # in whole numbers of any size: the difference of two large floats would be noise. Sums of floats may differ by
        # less than nothing where all values are alike
        spreads = [count * squares - total**2 for total, squares in zip(*totals, strict=True)]
        variances = [max(spread, 0) / count**2 for spread in spreads]
        return rounded(total / count for total in totals[0]), rounded(variance**0.5 for variance in variances)

    def take(self, indices: NDArray[np.int64]) -> StoredSamples:
        """As `LabelledImages.take`."""
        return StoredSamples(self._inputs_of(indices), self.labels[indices], self.facts[indices])


class LabelledFiles(Images):
    """Options shared by tasks of files with a class each.

    ``test`` and ``validation`` are the shares carved out where the source has no such part. ``labels`` puts the classes
    in another order than that of their names.
    """

    what: ClassVar[str] = "pictures"

    test: Share = 0.2
    _found: Found | None = PrivateAttr(None)
    _read: dict[Part, StoredSamples] | None = PrivateAttr(None)
    _files: dict[Part, list[tuple[Path, str]]] = PrivateAttr(default_factory=dict)
    _decoder: SampleDecoder | None = PrivateAttr(None)
    _folder: Path | None = PrivateAttr(None)

    @abstractmethod
    def _list(self) -> Found:
        """Find the files. Raises ConfigurationError where they aren't laid out as expected."""

    @abstractmethod
    def _origin(self) -> Path:
        """The folder or file that says which files there are."""

    @abstractmethod
    def _look(self, data: bytes, path: Path) -> Any:
        """What has to be known of all files before the first is decoded. Raises ConfigurationError with the path."""

    @abstractmethod
    def _decoder_for(self, looks: Sequence[Any]) -> SampleDecoder:
        """How files become samples, by what `_look` found in each. Raises ConfigurationError where they differ."""

    def prepare(self, progress: Progress, stop: Callable[[], bool]) -> str:
        """Decode what isn't decoded yet, and say what there is. Raises as `stored_samples` does."""
        read, found = self._ready(progress, stop), self.listed()
        size = sum(images.inputs.nbytes for images in read.values())
        ignored = f"; {found.ignored:,} other files ignored" if found.ignored else ""
        count = sum(map(len, read.values()))
        return f"{count:,} {self.what} of {len(self._names())} classes, {format_bytes(size)} in {self._folder}{ignored}"

    def split_list(self) -> str:
        """Which file is in which split: path, label, split. Of pictures, the task `image-csv` reads it."""
        self._ready(_silent, _never)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("path", "label", "split"))
        rows.writerows((path.absolute(), name, part) for part in PARTS for path, name in self._files[part])
        return text.getvalue()

    def listed(self) -> Found:
        """The files, none of them read. Raises ConfigurationError where they aren't laid out as expected."""
        if self._found is None:
            self._found = self._list()
        return self._found

    def _names(self) -> tuple[str, ...]:
        return self.labels or class_order({name for files in self.listed().parts.values() for _, name in files})

    def _decoded(self) -> SampleDecoder:
        """How files became samples."""
        self._ready(_silent, _never)
        assert self._decoder is not None
        return self._decoder

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

    def _ready(self, progress: Progress, stop: Callable[[], bool]) -> dict[Part, StoredSamples]:
        """The three parts, each in one stretch of the file, so that none has to be copied."""
        if self._read is not None:
            return self._read
        found, names = self.listed().parts, self._names()
        numbers = {name: number for number, name in enumerate(names)}
        listed = [(path, name, part) for part in PARTS for path, name in found.get(part, ())]
        if unknown := sorted({name for _, name, _ in listed} - set(names)):
            raise ConfigurationError.one(
                f"{self._origin()} has the class `{unknown[0]}`, which `labels` doesn't name", "name every class"
            )
        files = [path for path, _, _ in listed]
        keys, looks = looked_at(files, progress, stop, self._look)
        labels = np.asarray([numbers[name] for _, name, _ in listed], np.int64)
        parts = parted(
            [part for _, _, part in listed], keys, labels, self.test, self.validation, str(self._origin()), self.what
        )
        order = np.concatenate([parts[part] for part in PARTS])
        self._files = {part: [listed[at][:2] for at in own] for part, own in parts.items()}
        decoder = self._decoder_for(looks)
        stored, facts, folder = stored_samples(
            str(self._origin()), decoder, [files[at] for at in order], keys[order], progress, stop
        )
        images, start = StoredSamples(stored, labels[order], facts), 0
        read = dict[Part, StoredSamples]()
        for part in PARTS:
            read[part] = images.take(np.arange(start, start + len(parts[part])))
            start += len(parts[part])
        self._decoder, self._read, self._folder = decoder, read, folder.parents[1]
        return read


def parted(
    named: Sequence[Part],
    keys: NDArray[np.uint64],
    labels: NDArray[np.int64],
    test: float,
    validation: float,
    source: str,
    what: str,
) -> dict[Part, NDArray[np.int64]]:
    """Indices of each part; what the source lacks is carved out of its training samples.

    ``test`` and ``validation`` are the shares of that. Samples with one key are never parted by it. Raises
    ConfigurationError where a part has no sample.
    """
    parts = {part: np.flatnonzero(np.asarray(named) == part) for part in PARTS}
    train = parts["train"]
    tested = 0 if len(parts["test"]) else max(1, round(test * len(train)))
    validated = 0 if len(parts["validation"]) else max(1, round(validation * (len(train) - tested)))
    carved = carve(keys[train], labels[train], [tested, validated])
    for part, own in zip(PARTS, (train[chosen] for chosen in carved), strict=True):
        if part == "train" or not len(parts[part]):
            parts[part] = own
    for part in PARTS:
        if not len(parts[part]):
            raise ConfigurationError.one(
                f"{source}: none of {len(named)} {what} is left for {part}",
                f"lower `test` or `validation`, or give more {what}",
            )
    # samples that are also in test or validation are left out: last, so that the others are a view of the file
    train, elsewhere = parts["train"], np.concatenate([keys[parts["test"]], keys[parts["validation"]]])
    twins = np.isin(keys[train], elsewhere)
    return {**parts, "train": np.concatenate([train[~twins], train[twins]])}


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes as they are numbered: by their letters, or as numbers where all are."""
    listed = sorted(names)
    return tuple(sorted(listed, key=int) if all(name.isdecimal() for name in listed) else listed)


def _silent(_done: int, _total: int, _note: str) -> None:
    """Where nobody watches."""


def _never() -> bool:
    return False
