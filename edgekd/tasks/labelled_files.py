"""Base of tasks of files with one class each (pictures, recordings), from folders or lists.

Files are decoded once to a file in the cache (`sample_store`) and memory-mapped, so that they may exceed memory. A
file's content decides its split; of files that decode to the same sample, those in test stay there, then those in
validation.
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
"""Order of the parts in the file of decoded samples."""

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Found(NamedTuple):
    """Files of each part of the source, with the names of their classes."""

    parts: Mapping[Part, Sequence[tuple[Path, str]]]
    ignored: int  # files of other kinds by their names


@dataclass(frozen=True)
class StoredSamples(LabelledImages):
    """Labelled samples with known hashes and sums (``facts``, see `stored_samples`)."""

    facts: NDArray[np.void]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """See `LabelledImages.keys`."""
        return np.asarray(self.facts["pixels"][:, 0], np.uint64)

    @cached_property
    def digest(self) -> Digest:
        """Digest of shape, values and labels, in order."""
        return digest_arrays(np.asarray(self.inputs.shape), self.facts["pixels"], self.labels)

    def moments(self, per_channel: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return exact moments from the sums; see `LabelledImages.moments`."""
        count = self.inputs.size // (self.inputs.shape[1] if per_channel else 1)
        axes = 0 if per_channel else None
        totals = [np.atleast_1d(self.facts[name].sum(axes)).tolist() for name in ("sum", "squares")]
        # Python integers: the difference of two large floats would be noise. With float sums a variance of equal values
        # may come out below zero
        spreads = [count * squares - total**2 for total, squares in zip(*totals, strict=True)]
        variances = [max(spread, 0) / count**2 for spread in spreads]
        return rounded(total / count for total in totals[0]), rounded(variance**0.5 for variance in variances)

    def take(self, indices: NDArray[np.int64]) -> StoredSamples:
        """Return some samples; see `LabelledImages.take`."""
        return StoredSamples(self._inputs_of(indices), self.labels[indices], self.facts[indices])


class LabelledFiles(Images):
    """Options shared by tasks of files with one class each.

    ``test`` and ``validation`` are the shares carved out if the source has no such part. ``labels`` sets an order of
    classes other than alphabetical.
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
        """Find the files. Raises ConfigurationError for an unexpected layout."""

    @abstractmethod
    def _origin(self) -> Path:
        """Return the folder or file that lists the files."""

    @abstractmethod
    def _look(self, data: bytes, path: Path) -> Any:
        """Return facts that are needed of all files before the first is decoded.

        Raises ConfigurationError with the path.
        """

    @abstractmethod
    def _decoder_for(self, looks: Sequence[Any]) -> SampleDecoder:
        """Return the decoder, given what `_look` found in each file. Raises ConfigurationError if they differ."""

    def prepare(self, progress: Progress, stop: Callable[[], bool]) -> str:
        """Decode files that are not decoded yet, and describe the data. Raises like `stored_samples`."""
        read, found = self._ready(progress, stop), self.listed()
        size = sum(images.inputs.nbytes for images in read.values())
        ignored = f"; {found.ignored:,} other files ignored" if found.ignored else ""
        count = sum(map(len, read.values()))
        return f"{count:,} {self.what} of {len(self._names())} classes, {format_bytes(size)} in {self._folder}{ignored}"

    def split_list(self) -> str:
        """Return a CSV of path, label and split of each file. For pictures, the task `image-csv` reads it."""
        self._ready(_silent, _never)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("path", "label", "split"))
        rows.writerows((path.absolute(), name, part) for part in PARTS for path, name in self._files[part])
        return text.getvalue()

    def listed(self) -> Found:
        """List the files without reading them. Raises ConfigurationError for an unexpected layout."""
        if self._found is None:
            self._found = self._list()
        return self._found

    def _names(self) -> tuple[str, ...]:
        return self.labels or class_order({name for files in self.listed().parts.values() for _, name in files})

    def _decoded(self) -> SampleDecoder:
        """Return the decoder that was used."""
        self._ready(_silent, _never)
        assert self._decoder is not None
        return self._decoder

    def _carve(self) -> CarvedImages:
        parts = self._ready(_silent, _never)
        return self._parted(parts["train"], parts["validation"], parts["test"])

    def _ready(self, progress: Progress, stop: Callable[[], bool]) -> dict[Part, StoredSamples]:
        """Return the three parts, each contiguous in the file, so that none has to be copied."""
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
    """Return the indices of each part; missing parts are carved out of the source's training samples.

    ``test`` and ``validation`` are their shares. Samples with one key stay together. Raises ConfigurationError if a
    part has no samples.
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
    """Return class names in order: alphabetical, or numeric if all are numbers."""
    listed = sorted(names)
    return tuple(sorted(listed, key=int) if all(name.isdecimal() for name in listed) else listed)


def _silent(_done: int, _total: int, _note: str) -> None:
    """Ignore progress."""


def _never() -> bool:
    return False
