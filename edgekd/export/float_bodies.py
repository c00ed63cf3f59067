"""Model bodies in float: a student converted once to a format, then edited for each precision and I/O wrapper.

Tracing and conversion take a second or two, edits milliseconds; a float student and its calibrated copy have the same
body. The last few are kept in the worker's memory.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from edgekd.records import Digest, canonical_json
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, trace

__all__ = ["Kept", "body_key", "traced"]

T = TypeVar("T")


class Kept(Generic[T]):
    """Cache of the results of the last few calls with different keys."""

    def __init__(self, largest: int = 6) -> None:
        self._largest = largest
        self._kept: OrderedDict[Digest, T] = OrderedDict()

    def get(self, key: Digest, make: Callable[[], T]) -> T:
        """Return the cached result, or a new one. An error of ``make`` is not cached."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > self._largest:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


_TRACED: Kept[Traced] = Kept()


def body_key(student: Student, *parts: str) -> Digest:
    """Digest of a student's structure and weights, whatever its annotations."""
    digest = hashlib.sha256()
    about = [student.family, dict(student.options), student.arch.model_dump(), student.task.input.shape, list(parts)]
    if not student.task.plain:
        about.append([head.model_dump(mode="json") for head in student.task.heads])
    digest.update(canonical_json(_plain(about)).encode())
    digest.update(repr(student.module).encode())  # folded and unfolded modules differ
    for name, tensor in student.module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def traced(student: Student, *, dynamic: bool) -> Traced:
    """Program of the folded student, with its decoder.

    Its ``student`` has this student's annotations, whichever student was traced first.
    """
    from edgekd.students.fold import folded

    flat = folded(student)
    found = _TRACED.get(body_key(flat, str(dynamic)), lambda: _decoded(flat, dynamic))
    return Traced(flat, found.program, found.keys, found.parameters)


def _decoded(flat: Student, dynamic: bool) -> Traced:
    return trace(flat, dynamic_batch=dynamic, decomposed=False, decoded=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
