"""Store of decoded files: each picture or recording is decoded once, on all cores, and then read as a mapped array.

A source (a folder of pictures at one size) has a folder in the cache, with one version in it::

    pictures/<source>/<version>/pixels       samples (N, C, ...), uint8 for pictures
    pictures/<source>/<version>/facts.npy    a record for each sample

The version is a digest of the content of all files in their order. A new one copies what it can from the previous one,
so that a few more pictures cost the decoding of a few and a copy of the others, and replaces it. A version that was
interrupted, or that met files which can't be decoded, is resumed. Pixels are checked against their hashes once in each
process; a damaged version is made again. Sources not read for 30 days are removed when another one is decoded.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from edgekd.errors import ConfigurationError, Interrupted, MissingError, Problem
from edgekd.records import Record, digest_json
from edgekd.tasks.images.decoding import picture_bytes
from edgekd.tasks.mapped import map_array, release, require_room
from edgekd.units import format_bytes

__all__ = ["Progress", "SampleDecoder", "looked_at", "stored_samples"]

_FORMAT = 1
_PIXELS, _FACTS = "pixels", "facts.npy"
_READ = "read"  # a file whose time of change is that of the last read
_IN_FLIGHT_BYTES = 64 * 1024**2
_SAVED_EVERY_S = 20.0
_RELEASED_EVERY = 64  # samples
_CHECKED_BYTES = 4 * 1024**2
_KEPT_S = 30 * 24 * 3600.0
_NAMED = 20  # files that can't be decoded; of the rest the number

_checked: set[tuple[Path, int, int]] = set()  # versions whose pixels this process has held against their hashes

Progress = Callable[[int, int, str], None]
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class SampleDecoder:
    """Decoder of files to samples of one shape and type. ``spec`` is its identity."""

    what: str  # word for the files in messages: ``pictures``
    spec: Record
    shape: tuple[int, ...]  # (C, ...)
    dtype: type[np.uint8] | type[np.float32]
    decode: Callable[[bytes, Path], NDArray[Any]]  # raises ConfigurationError with the path

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def facts(self) -> np.dtype[np.void]:
        """Type of the record of each sample. Sums of integers are exact."""
        sums = ("<u8" if self.dtype is np.uint8 else "<f8", (self.shape[0],))
        return np.dtype([("file", "<u8"), ("pixels", "<u8", (2,)), ("sum", *sums), ("squares", *sums)])


def looked_at(
    files: Sequence[Path], progress: Progress, stop: Callable[[], bool], look: Callable[[bytes, Path], ResultT]
) -> tuple[NDArray[np.uint64], list[ResultT]]:
    """Return a hash of each file's content, never 0, and what ``look`` finds in it.

    Raises ConfigurationError with all files that can't be read, Interrupted when ``stop()``.
    """

    def each(path: Path) -> tuple[int, ResultT]:
        data = picture_bytes(path)
        return _hash(data)[0], look(data, path)

    keys, found, broken = np.ones(len(files), np.uint64), list[ResultT](), list[Problem]()
    for at, result in enumerate(_each(files, each, 64, progress, "reading the files", stop)):
        if isinstance(result, ConfigurationError):
            broken.extend(result.problems)
        else:
            keys[at] = result[0]
            found.append(result[1])
    _refuse(broken)
    return keys, found


def stored_samples(
    source: str,
    decoder: SampleDecoder,
    files: Sequence[Path],
    keys: NDArray[np.uint64],
    progress: Progress,
    stop: Callable[[], bool],
) -> tuple[NDArray[Any], NDArray[np.void], Path]:
    """Return samples (N, C, ...) mapped from disk, facts (N,) and their folder. ``keys`` are those of `looked_at`.

    Facts are ``file`` and ``pixels``, hashes of both, and by channel the ``sum`` of values and of their ``squares``.
    Raises ConfigurationError with the paths of files that can't be decoded, Interrupted when ``stop()``, and
    MissingError if the disk is too small.
    """
    described = [_FORMAT, decoder.spec.model_dump(mode="json")]
    content = np.ascontiguousarray(keys, "<u8").tobytes()
    version = hashlib.sha256(digest_json(described).encode() + content).hexdigest()[:32]
    folder = user_cache_path("edgekd") / decoder.what / digest_json([source, *described])[:32]
    whole = folder / version
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(
        folder / "lock", decoder.what, len(files), progress, stop
    ):  # a process that makes another version removes this one
        (folder / _READ).touch()
        read = _read(whole, decoder)
        if read is None:
            _forget_unused(folder.parent)
        if read is None or not _is_whole(whole, keys, *read, progress, stop):
            _Making(whole, decoder, files, keys, progress, stop).run()
            _checked.add(_state_of(whole))
            read = _read(whole, decoder)
        if read is None:
            raise MissingError(f"{whole} was removed while it was written", "run the same command again")
    facts, pixels = read
    return pixels, facts, whole


@dataclass
class _Making:
    """Creation of one version of a source, under its lock."""

    whole: Path
    decoder: SampleDecoder
    files: Sequence[Path]
    keys: NDArray[np.uint64]
    progress: Progress
    stop: Callable[[], bool]

    def __post_init__(self) -> None:
        self.row_bytes = self.decoder.row_bytes
        self.part = self.whole.with_name(f"{self.whole.name}.part")
        begun = _read(self.part, self.decoder)
        fresh = np.zeros(len(self.files), self.decoder.facts)
        self.facts = fresh if begun is None or len(begun[0]) != len(fresh) else begun[0]

    def run(self) -> None:
        """Decode files that no earlier version has."""
        self.part.mkdir(exist_ok=True)
        pixels = self.part / _PIXELS
        pixels.touch()
        require_room(self.part, len(self.files) * self.row_bytes - pixels.stat().st_size)
        with pixels.open("r+b") as stream:
            try:
                self._take_over(stream)
                broken = self._decode(stream)
            finally:
                self._save(stream)
        _refuse(broken)
        if self.whole.is_dir():  # damaged
            shutil.rmtree(self.whole)
        self.part.replace(self.whole)
        for other in self.whole.parent.iterdir():
            if other.is_dir() and other != self.whole:  # who reads it goes on doing so: a mapped file outlives its name
                shutil.rmtree(other)

    def _take_over(self, stream: IO[bytes]) -> None:
        """Copy the samples of files that another version has."""
        for other in sorted(self.whole.parent.iterdir()):
            missing = np.flatnonzero(self.facts["file"] == 0).tolist()
            read = _read(other, self.decoder) if other not in (self.whole, self.part) and missing else None
            if read is None:
                continue
            facts, rows = read
            there = {int(key): row for row, key in enumerate(facts["file"]) if key}
            both = [(at, there[key]) for at in missing if (key := int(self.keys[at])) in there]
            for count, (at, row) in enumerate(both):
                if count % _RELEASED_EVERY == 0:
                    release()
                    self._stop_if_asked(count)
                    self.progress(count, len(both), "taking over what is decoded already")
                if _hash(rows[row].data) == tuple(facts[row]["pixels"].tolist()):
                    self._put(stream, at, rows[row], facts[row])

    def _decode(self, stream: IO[bytes]) -> list[Problem]:
        missing = np.flatnonzero(self.facts["file"] == 0).tolist()
        note = f"decoding, {format_bytes(len(self.files) * self.row_bytes)} to keep"
        window, saved, broken = max(32, _IN_FLIGHT_BYTES // self.row_bytes), time.monotonic(), list[Problem]()
        for at, result in zip(
            missing, _each(missing, self._decoded, window, self.progress, note, self.stop), strict=True
        ):
            if isinstance(result, ConfigurationError):
                broken.extend(result.problems)
                continue
            self._put(stream, at, *result)
            if time.monotonic() - saved > _SAVED_EVERY_S:
                self._save(stream)
                saved = time.monotonic()
        return broken

    def _decoded(self, at: int) -> tuple[NDArray[Any], tuple[Any, ...]]:
        path = self.files[at]
        data = picture_bytes(path)
        if _hash(data)[0] != self.keys[at]:  # else it would be stored under the old hash
            raise ConfigurationError.one(f"{path} changed while it was read", "run it again when the files stand still")
        sample = self.decoder.decode(data, path)
        total: Any = np.uint64 if sample.dtype == np.uint8 else np.float64
        values = sample.reshape(len(sample), -1).astype(np.uint32 if sample.dtype == np.uint8 else np.float64)
        sums = values.sum(1, dtype=total), (values**2).sum(1, dtype=total)
        return sample, (self.keys[at], _hash(np.ascontiguousarray(sample).data), *sums)

    def _put(self, stream: IO[bytes], at: int, sample: NDArray[Any], facts: Any) -> None:
        stream.seek(at * self.row_bytes)
        stream.write(np.ascontiguousarray(sample).data)
        self.facts[at] = facts

    def _save(self, stream: IO[bytes]) -> None:
        """Write pixels, then facts: facts must never refer to pixels that aren't on disk."""
        stream.flush()
        os.fsync(stream.fileno())
        new = self.part / f"{_FACTS}.new"
        with new.open("wb") as file:
            np.save(file, self.facts, allow_pickle=False)
        new.replace(self.part / _FACTS)

    def _stop_if_asked(self, done: int) -> None:
        if self.stop():
            raise _stopped(done, len(self.files))


def _each(
    items: Sequence[ItemT],
    look: Callable[[ItemT], ResultT],
    window: int,
    progress: Progress,
    note: str,
    stop: Callable[[], bool],
) -> Iterator[ResultT | ConfigurationError]:
    """Yield what ``look`` returns for each item, or its error, in order, with one thread for each core.

    Pillow decodes and resizes without the interpreter's lock. At most ``window`` results are pending.
    """

    def attempt(item: ItemT) -> ResultT | ConfigurationError:
        try:
            return look(item)
        except ConfigurationError as error:
            return error

    left, waiting, total = iter(items), deque[Future[ResultT | ConfigurationError]](), len(items)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        waiting.extend(pool.submit(attempt, item) for item in islice(left, window))
        for done in range(total):
            if stop():
                raise _stopped(done, total)
            if done % 16 == 0:
                progress(done, total, note)
            result = waiting.popleft().result()
            waiting.extend(pool.submit(attempt, item) for item in islice(left, 1))
            yield result
        progress(total, total, note)
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse(broken: Sequence[Problem]) -> None:
    if broken:
        more = len(broken) - _NAMED
        rest = [Problem(f"{more} more files can't be read")] if more > 0 else []
        raise ConfigurationError([*broken[:_NAMED], *rest])


def _stopped(done: int, total: int) -> Interrupted:
    return Interrupted(f"stopped after {done} of {total} files", "run the same command again: it goes on from here")


@contextmanager
def _locked(path: Path, what: str, total: int, progress: Progress, stop: Callable[[], bool]) -> Iterator[None]:
    """Lock the source against other processes inside this context. Raises Interrupted when ``stop()``."""
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            if stop():
                raise _stopped(0, total) from None
            progress(0, total, f"waiting for another run that decodes these {what}")
    try:
        yield
    finally:
        lock.release()


def _forget_unused(sources: Path) -> None:
    """Remove the versions of sources that were not read for long. Their locks stay: another process may wait there.

    One that can't be removed stays: it is another user's, or another process is about to remove it.
    """
    for source in sources.iterdir():
        with suppress(Timeout, OSError), FileLock(source / "lock").acquire(timeout=0):
            read = source / _READ
            if not read.exists():
                read.touch()
            elif time.time() - read.stat().st_mtime > _KEPT_S:
                for version in source.iterdir():
                    if version.is_dir() and not version.is_symlink():
                        shutil.rmtree(version)


def _is_whole(
    folder: Path,
    keys: NDArray[np.uint64],
    facts: NDArray[np.void],
    pixels: NDArray[Any],
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Return whether a version has all samples and, checked once in a process, unchanged pixels."""
    if not (len(pixels) == len(keys) == len(facts)) or not np.array_equal(facts["file"], keys):
        return False
    if _state_of(folder) in _checked:
        return True

    def same(rows: slice) -> bool:
        hashes = [_hash(np.ascontiguousarray(row).data) for row in pixels[rows]]
        return bool(np.array_equal(np.asarray(hashes, np.uint64), facts["pixels"][rows]))

    step = max(1, _CHECKED_BYTES // max(1, pixels[:1].nbytes))
    rows = [slice(start, start + step) for start in range(0, len(pixels), step)]
    for found in _each(rows, same, 2 * (os.cpu_count() or 1), progress, "checking what is decoded already", stop):
        release()
        if found is not True:
            return False
    _checked.add(_state_of(folder))
    return True


def _state_of(folder: Path) -> tuple[Path, int, int]:
    status = (folder / _PIXELS).stat()
    return folder, status.st_mtime_ns, status.st_ino


def _read(folder: Path, decoder: SampleDecoder) -> tuple[NDArray[np.void], NDArray[Any]] | None:
    """Read facts and samples of a version, complete or not; None if there is none, or none that is usable."""
    try:
        facts: NDArray[np.void] = np.load(folder / _FACTS, allow_pickle=False)
        count = (folder / _PIXELS).stat().st_size // decoder.row_bytes
    except (OSError, ValueError, EOFError):
        return None
    if facts.dtype != decoder.facts or not count or facts["file"][count:].any():
        return None
    return facts, map_array(folder / _PIXELS, decoder.dtype, (count, *decoder.shape))


def _hash(data: bytes | memoryview) -> tuple[int, int]:
    """Return 128 bits as two numbers; the first is never 0."""
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") or 1, int.from_bytes(digest[8:], "big")
