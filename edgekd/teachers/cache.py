"""What a teacher said, kept on disk: answering once makes every later epoch several times faster.

::

    FOLDER/KEY.f32     float32 answers (seeds, samples, classes), in the order of `seeds`
    FOLDER/KEY.json    {"seeds": [...], "samples": N, "classes": C, "rows": finished rows of N x C}
    FOLDER/KEY.lock    held while answers are added

KEY is made from teacher, split and view, so runs share it, and a longer run adds the seeds it lacks. The marker is
written after its rows are on disk: whatever a killed process left behind it is answered again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from edgekd.errors import Interrupted, MissingError
from edgekd.records import Digest, digest_json
from edgekd.tasks._protocol import Split
from edgekd.teachers._protocol import Teacher, View

__all__ = ["CacheCost", "TeacherCache"]

_BATCH, _BLOCK = 256, 2048  # samples a call, samples a marker


@dataclass(frozen=True)
class CacheCost:
    """What a request has yet to add: images to answer and bytes to write."""

    images: int
    size_bytes: int


@dataclass(frozen=True)
class _State:
    seeds: tuple[int, ...]
    samples: int
    classes: int
    rows: int  # finished, counted through all seeds

    @property
    def row_bytes(self) -> int:
        return 4 * self.classes

    def with_seeds(self, seeds: Sequence[int]) -> _State:
        new = tuple(seed for seed in dict.fromkeys(seeds) if seed not in self.seeds)
        return _State(self.seeds + new, self.samples, self.classes, self.rows)


class TeacherCache:
    """Answers by (teacher, split, view, seed) in one folder. Safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cost(self, teacher: Teacher, split: Split, view: View | None, seeds: Sequence[int]) -> CacheCost:
        """What ``answers`` would have to add, known before any of it is written."""
        state = self._state(self._key(teacher, split, view), split, teacher.classes)
        wanted = state.with_seeds(_stored(view, seeds))
        images = len(wanted.seeds) * state.samples - state.rows
        return CacheCost(images, images * state.row_bytes)

    def answers(
        self,
        teacher: Teacher,
        split: Split,
        view: View | None,
        seeds: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> NDArray[np.float32]:
        """Logits (len(seeds), N, classes), read-only; memory-mapped where the seeds stand together in the file.

        Without a view all seeds look the same, and are answered and stored once. ``progress(done, total)`` counts
        images still to be answered, first with 0. Raises Interrupted when ``stop()``, keeping what is finished, and
        MissingError where the disk has no room.
        """
        if not seeds:
            raise ValueError("at least one seed is needed")
        key = self._key(teacher, split, view)
        state = self._state(key, split, teacher.classes)
        wanted = state.with_seeds(_stored(view, seeds))
        if state.rows < len(wanted.seeds) * wanted.samples:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{key}.lock"):
                state = self._state(key, split, teacher.classes)  # another process may have been at it meanwhile
                wanted = state.with_seeds(_stored(view, seeds))
                self._complete(key, wanted, teacher, split, view, progress, stop)
        shape = (len(wanted.seeds), wanted.samples, wanted.classes)
        stored = np.memmap(self.folder / f"{key}.f32", np.dtype("<f4"), mode="r", shape=shape)
        if view is None:
            return np.broadcast_to(stored, (len(seeds), *shape[1:]))
        places = [wanted.seeds.index(seed) for seed in seeds]
        if places == list(range(places[0], places[0] + len(places))):
            return stored[places[0] : places[0] + len(places)]
        return stored[places]

    def _complete(
        self,
        key: Digest,
        state: _State,
        teacher: Teacher,
        split: Split,
        view: View | None,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        total = len(state.seeds) * state.samples
        first = state.rows
        self._check_room((total - first) * state.row_bytes)
        if progress is not None:
            progress(0, total - first)
        path = self.folder / f"{key}.f32"
        path.touch()
        with path.open("r+b") as stream:
            stream.seek(first * state.row_bytes)
            done = first
            while done < total:
                if stop is not None and stop():
                    raise Interrupted(
                        f"stopped after {done - first} of {total - first} answers of `{teacher.name}`",
                        "run the same command again: it goes on from here",
                    )
                seed_place, start = divmod(done, state.samples)
                block = np.arange(start, min(start + _BLOCK, state.samples))
                for at in range(0, len(block), _BATCH):
                    rows = _answer(teacher, split, view, block[at : at + _BATCH], state.seeds[seed_place])
                    stream.write(rows.astype("<f4").tobytes())
                stream.flush()
                os.fsync(stream.fileno())
                done += len(block)
                self._mark(key, _State(state.seeds, state.samples, state.classes, done))
                if progress is not None:
                    progress(done - first, total - first)

    def _state(self, key: Digest, split: Split, classes: int) -> _State:
        """What the disk really holds; an unreadable or foreign marker counts as nothing."""
        nothing = _State((), len(split), classes, 0)
        try:
            read = json.loads((self.folder / f"{key}.json").read_text())
            state = _State(tuple(read["seeds"]), read["samples"], read["classes"], read["rows"])
            held = (self.folder / f"{key}.f32").stat().st_size // state.row_bytes
        except (FileNotFoundError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return nothing
        if (state.samples, state.classes) != (nothing.samples, nothing.classes):
            return nothing
        return _State(state.seeds, state.samples, state.classes, min(state.rows, held))

    def _mark(self, key: Digest, state: _State) -> None:
        text = json.dumps(
            {"seeds": state.seeds, "samples": state.samples, "classes": state.classes, "rows": state.rows}
        )
        scratch = self.folder / f"{key}.json.new"
        with scratch.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(self.folder / f"{key}.json")

    def _check_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size_bytes > free:
            raise MissingError(
                f"the teacher's answers take {size_bytes} bytes, and {self.folder} has {free} left",
                "free some space, or use fewer views",
            )

    @staticmethod
    def _key(teacher: Teacher, split: Split, view: View | None) -> Digest:
        return digest_json(
            {"teacher": teacher.digest(), "split": split.digest, "view": view.digest() if view else None}
        )


def _stored(view: View | None, seeds: Sequence[int]) -> Sequence[int]:
    return seeds if view is not None else (0,)


def _answer(
    teacher: Teacher, split: Split, view: View | None, indices: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    batch = torch.from_numpy(np.array(split.inputs[indices]))
    seen = batch.float() if view is None else view(batch, indices, seed)
    return teacher.logits(seen).numpy()
