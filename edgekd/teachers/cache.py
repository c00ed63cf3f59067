"""Teacher cache on disk: logits and features are computed once, which makes every later epoch several times faster.

::

    FOLDER/KEY.f32         float32 logits (seeds, samples, classes), in the order of `seeds`
    FOLDER/KEY.json        {"seeds": [...], "samples": N, "classes": C, "rows": finished rows of N x C, "sums": [...]}
    FOLDER/KEY-POINT.f16   float16 activations at one point of the teacher's network, with its own .json
    FOLDER/KEY.lock        held while rows are added

KEY is the digest of teacher, split and view, so runs share the files: a longer run adds missing seeds, another loss
adds missing points. A marker is written after its rows are on disk, with a CRC of each block: rows that a killed
process left behind the marker, and rows from the first block whose CRC differs, are computed again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from edgekd.errors import ConfigurationError, Interrupted, MissingError, about
from edgekd.records import Digest, digest_json
from edgekd.students.points import Point
from edgekd.tasks._protocol import InputSpec, Split
from edgekd.tasks.mapped import map_array, release
from edgekd.teachers._protocol import Teacher, View
from edgekd.teachers.observed import Seen, observing, samples_at_once
from edgekd.units import format_bytes

__all__ = ["CacheCost", "CachedOutputs", "TeacherCache", "shared"]

_BLOCK = 2048  # samples a marker
_LOGITS = ""  # the column that has no point


@dataclass(frozen=True)
class CachedOutputs:
    """Teacher outputs for k views of N samples. Read-only; memory-mapped if the order on disk allows."""

    logits: NDArray[np.float32]  # (k, N, classes)
    features: Mapping[str, NDArray[np.float16]]  # by point, (k, N, *shape)


@dataclass(frozen=True)
class CacheCost:
    """Cost of a request: images to compute and bytes to write."""

    images: int
    size_bytes: int


@dataclass(frozen=True)
class _Column:
    """File of logits or of one point's activations, with its seeds and the number of finished rows."""

    path: Path  # without its ending
    point: str
    shape: tuple[int, ...]  # of a row
    samples: int
    seeds: tuple[int, ...] = ()
    rows: int = 0  # counted through all seeds
    sums: tuple[int, ...] = ()  # CRC-32 of each finished block

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<f2") if self.point else np.dtype("<f4")

    @property
    def data(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{'f16' if self.point else 'f32'}")

    @property
    def marker(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def missing(self) -> int:
        return len(self.seeds) * self.samples - self.rows

    def asked(self, seeds: Sequence[int]) -> _Column:
        """Return the column with these seeds.

        Seeds of other runs stay only if finished: an interrupted run may never resume.
        """
        whole = self.rows // self.samples
        kept, rows = self.seeds[:whole], whole * self.samples
        if self.rows > rows and self.seeds[whole] in seeds:
            kept, rows = self.seeds[: whole + 1], self.rows
        new = tuple(seed for seed in dict.fromkeys(seeds) if seed not in kept)
        return replace(self, seeds=kept + new, rows=rows, sums=self.sums[: self.blocks(rows)])

    def blocks(self, rows: int) -> int:
        """Return the number of whole blocks in so many rows; a block never spans two seeds."""
        whole, more = divmod(rows, self.samples)
        return whole * -(-self.samples // _BLOCK) + more // _BLOCK

    def rows_before(self, block: int) -> int:
        """Return the number of rows before a block."""
        whole, more = divmod(block, -(-self.samples // _BLOCK))
        return whole * self.samples + more * _BLOCK


class TeacherCache:
    """Teacher outputs by (teacher, split, view, seed) in one folder. Safe for several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cost(
        self, teacher: Teacher, split: Split, view: View | None, seeds: Sequence[int], points: Sequence[Point] = ()
    ) -> CacheCost:
        """Return the cost of ``outputs`` before anything is written."""
        columns = self._columns(teacher, split, view, seeds, points)
        size = sum(column.missing * column.row_bytes for column in columns)
        return CacheCost(max(column.missing for column in columns), size)

    def outputs(
        self,
        teacher: Teacher,
        split: Split,
        view: View | None,
        seeds: Sequence[int],
        points: Sequence[Point] = (),
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
        given: InputSpec | None = None,
    ) -> CachedOutputs:
        """Return logits, and activations at ``points`` of the teacher's network, for every seed.

        ``given`` is the task's input; None for images. Without a view all seeds are identical, and are computed and
        stored once. ``progress(done, total)`` counts images to be computed, first with 0. Raises Interrupted when
        ``stop()``, keeping what is finished; MissingError if the disk is too small; ConfigurationError if an activation
        is NaN or beyond float16.
        """
        if not seeds:
            raise ValueError("at least one seed is needed")
        columns = self._columns(teacher, split, view, seeds, points)
        if any(column.missing for column in columns):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{self._key(teacher, split, view)}.lock"):
                columns = self._columns(teacher, split, view, seeds, points)  # another process may have been at it
                self._check_room(columns)
                shape = split.inputs.shape[1:]
                given = given.but(shape=shape) if given is not None else InputSpec(shape=shape)
                with observing(teacher, given, points) as ask:
                    self._complete(
                        columns, ask, split, view, progress, stop, teacher.name, samples_at_once(teacher, given)
                    )
        read = {column.point: _read(column, view, seeds) for column in columns}
        return CachedOutputs(read.pop(_LOGITS), read)

    def _complete(
        self,
        columns: Sequence[_Column],
        ask: Seen,
        split: Split,
        view: View | None,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool] | None,
        name: str,
        batch: int,
    ) -> None:
        """Complete the columns; those with the same seeds and rows share one pass of the teacher."""
        open_ = [column for column in columns if column.missing]
        states = dict.fromkeys((column.seeds, column.rows) for column in open_)
        groups = [[column for column in open_ if (column.seeds, column.rows) == state] for state in states]
        total, before = sum(group[0].missing for group in groups), 0

        def report(done: int) -> None:
            if progress is not None:
                progress(done, total)
            if stop is not None and done < total and stop():
                raise Interrupted(
                    f"stopped after {done} of {total} images by teacher `{name}`",
                    "run the same command again: it goes on from here",
                )

        report(0)
        for group in groups:
            for rows in _added(group, ask, split, view, batch):
                report(before + rows - group[0].rows)
            before += group[0].missing

    def _columns(
        self, teacher: Teacher, split: Split, view: View | None, seeds: Sequence[int], points: Sequence[Point]
    ) -> list[_Column]:
        """Return the columns as they are on disk, with the seeds to be added."""
        key, samples = self._key(teacher, split, view), len(split)
        columns = [_Column(self.folder / key, _LOGITS, (teacher.classes,), samples)]
        for point in points:
            columns.append(_Column(self.folder / f"{key}-{point.digest()[:16]}", point.name, point.shape, samples))
        return [_found(column).asked(seeds if view is not None else (0,)) for column in columns]

    def _check_room(self, columns: Sequence[_Column]) -> None:
        free = shutil.disk_usage(self.folder).free
        size = sum(column.missing * column.row_bytes for column in columns)
        if size > free:
            raise MissingError(
                f"the teacher's outputs take {format_bytes(size)}, and {self.folder} has {format_bytes(free)} left",
                "free some space, or use fewer views or points",
            )

    @staticmethod
    def _key(teacher: Teacher, split: Split, view: View | None) -> Digest:
        return digest_json(
            {"teacher": teacher.digest(), "split": split.digest, "view": view.digest() if view else None}
        )


def shared(array: NDArray[np.generic]) -> Tensor:
    """Return a tensor on the array's memory, not to be written: a training set may fill half of the machine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _added(group: Sequence[_Column], ask: Seen, split: Split, view: View | None, batch: int) -> Iterator[int]:
    """Add block after block to all columns of a group; yields the number of finished rows after each."""
    column, inputs = group[0], shared(split.inputs)
    total, done = len(column.seeds) * column.samples, column.rows
    with ExitStack() as opened:
        streams: list[IO[bytes]] = []
        opened.enter_context(about(column.data))
        for each in group:
            each.data.touch()
            streams.append(opened.enter_context(each.data.open("r+b")))
            streams[-1].seek(done * each.row_bytes)
        for each in group:
            if _found(each).rows > done:  # a marker must never speak of rows that are about to be written over
                _mark(each)
        sums = [list(each.sums) for each in group]
        while done < total:
            place, start = divmod(done, column.samples)
            block = np.arange(start, min(start + _BLOCK, column.samples))
            for own in sums:
                own.append(0)
            for at in range(0, len(block), batch):
                indices, seed = block[at : at + batch], column.seeds[place]
                seen = inputs[torch.from_numpy(indices)] if view is None else view(inputs, indices, seed)
                logits, features = ask(seen.float())
                for each, stream, own in zip(group, streams, sums, strict=True):
                    data = _rows(each, features[each.point] if each.point else logits)
                    stream.write(data)
                    own[-1] = zlib.crc32(data, own[-1])
                release()
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
            done += len(block)
            for each, own in zip(group, sums, strict=True):
                _mark(replace(each, rows=done, sums=tuple(own)))
            yield done


def _rows(column: _Column, values: Tensor) -> bytes:
    stored = values.to(torch.float16 if column.point else torch.float32).cpu().numpy().astype(column.dtype, copy=False)
    if not column.point and not np.isfinite(stored).all():
        raise ConfigurationError.one(
            "the teacher's logits are NaN or infinite", "check its weights, and its mean and std in raw units"
        )
    if column.point and not np.isfinite(stored).all():
        if not torch.isfinite(values).all():
            raise ConfigurationError.one(
                f"the teacher's activations at `{column.point}` are NaN or infinite",
                "check its weights, and its mean and std in raw units",
            )
        raise ConfigurationError.one(
            f"the teacher's activations at `{column.point}` are too large for float16",
            "choose another point, for example one behind a normalisation",
        )
    return stored.tobytes()


def _found(column: _Column) -> _Column:
    """Return the column with its valid rows on disk; an unreadable or foreign marker counts as none."""
    try:
        read = json.loads(column.marker.read_text())
        stat = column.data.stat()
        alike = (read["samples"], read["classes"]) == (column.samples, math.prod(column.shape))
        seeds = tuple(read["seeds"])
        rows = min(read["rows"], stat.st_size // column.row_bytes, len(seeds) * column.samples)
        if not alike or rows <= 0:
            return column
        sums = tuple(read["sums"])[: column.blocks(rows)]
        whole = _whole_blocks(replace(column, rows=rows, sums=sums), stat.st_mtime_ns, stat.st_size)
        return replace(column, seeds=seeds, rows=column.rows_before(whole), sums=sums[:whole])
    except (FileNotFoundError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return column


@lru_cache(maxsize=256)
def _whole_blocks(column: _Column, changed_ns: int, size: int) -> int:  # noqa: ARG001  # part of the cache key: a changed file is read again
    """Return the number of leading blocks whose CRC matches. Read once in each process."""
    with column.data.open("rb") as stream:
        for block, expected in enumerate(column.sums):
            rows = column.rows_before(block + 1) - column.rows_before(block)
            if zlib.crc32(stream.read(rows * column.row_bytes)) != expected:
                return block
    return len(column.sums)


def _mark(column: _Column) -> None:
    text = json.dumps(
        {
            "seeds": column.seeds,
            "samples": column.samples,
            "classes": math.prod(column.shape),  # values in a row
            "rows": column.rows,
            "sums": column.sums,
        }
    )
    scratch = column.marker.with_name(f"{column.marker.name}.new")
    with scratch.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(column.marker)


def _read(column: _Column, view: View | None, seeds: Sequence[int]) -> NDArray[Any]:
    shape = (len(column.seeds), column.samples, *column.shape)
    stored = map_array(column.data, column.dtype, shape)
    if view is None:
        return np.broadcast_to(stored, (len(seeds), *shape[1:]))
    places = [column.seeds.index(seed) for seed in seeds]
    if places == list(range(places[0], places[0] + len(places))):
        return stored[places[0] : places[0] + len(places)]
    return stored[places]
