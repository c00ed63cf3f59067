"""`heads`: separate teachers for the heads of a multi-head task, for all or some of them.

::

    teacher:
      kind: heads
      of:
        things: {kind: torch, module: my_detector:build, weights: detector.safetensors}
        mask: {kind: train, width: 32, epochs: 30}

Each has the options of a teacher of that head alone. One that is trained here learns from the samples with its label,
and then teaches on those without. A head without a teacher learns from labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.records import Digest, Record, digest_json
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.tasks.one_head import OneHead
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.nested import made_teacher, prepared_teacher, resolved_teachers, untrained_teacher
from edgekd.teachers.packing import Packed, packing_in

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.events import StageProgress

__all__ = ["HeadsTeacher"]


class HeadsTeacher(Record):
    """Options of `heads`: teachers by the name of their head."""

    of: Annotated[Mapping[str, Mapping[str, Any]], Field(min_length=1)]
    _teachers: Mapping[str, Teacher] | None = PrivateAttr(None)

    @field_validator("of")
    @classmethod
    def _resolved(cls, of: Mapping[str, Mapping[str, Any]], info: ValidationInfo) -> dict[str, Mapping[str, Any]]:
        """Validate each teacher, and make its paths absolute while the project's folder is known."""
        return dict(zip(of, resolved_teachers(of.items(), info.context), strict=True))

    @property
    def name(self) -> str:
        """Heads and the names of their teachers."""
        return ", ".join(f"{head}: {teacher.name}" for head, teacher in self._known().items())

    @property
    def classes(self) -> int:
        """Length of a row of `logits`."""
        return sum(part.size for part in self.packing)

    @property
    def packing(self) -> tuple[Packed, ...]:
        """Layout of raw outputs in `logits`. Raises ConfigurationError before `bound`."""
        return tuple(part for head, teacher in self._known().items() for part in _packing(head, teacher))

    def digest(self) -> Digest:
        """Return the identity of all teachers, in the order of packing."""
        return digest_json([[head, teacher.digest()] for head, teacher in self._known().items()])

    def prepare(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> HeadsTeacher:
        """Return it with its teachers trained where needed.

        Raises Interrupted when ``stop()``, UnknownName for a missing head.
        """
        self._require_heads(task.spec)  # before the first of them is trained
        ready = self.but()
        ready._teachers = {
            head: prepared_teacher(teacher, OneHead(task, head), cache, progress, stop)
            for head, teacher in self._known().items()
        }
        return ready

    def untrained(self, spec: TaskSpec) -> HeadsTeacher:
        """Return what ``prepare`` returns, with random weights for teachers to be trained. Raises UnknownName."""
        self._require_heads(spec)
        heads, sketched = {head.name: head for head in spec.heads}, self.but()
        sketched._teachers = {
            head: untrained_teacher(teacher, spec.but(head=heads[head], more=()))
            for head, teacher in self._known().items()
        }
        return sketched

    def bound(self, spec: TaskSpec) -> HeadsTeacher:
        """Return it with every teacher bound to its head. Raises ConfigurationError naming the one that doesn't fit."""
        from edgekd.teachers.binding import bind

        heads = {head.name: head for head in spec.heads}
        if spec.plain:
            raise ConfigurationError.one(
                f"task `{spec.name}` has one classification head", "write its teacher without `kind: heads`"
            )
        self._require_heads(spec)
        bound = self.but()
        bound._teachers = {
            head: bind(teacher, spec.but(head=heads[head], more=())) for head, teacher in self._known().items()
        }
        return bound

    def logits(self, batch: Tensor) -> Tensor:
        """Return the packed raw outputs of all heads: (N, numbers) float32, for raw-unit batches (N, C, H, W)."""
        import torch

        return torch.cat([teacher.logits(batch) for teacher in self._known().values()], 1)

    def _require_heads(self, spec: TaskSpec) -> None:
        known = [head.name for head in spec.heads]
        for name in self.of:
            if name not in known:
                raise UnknownName("head", name, known)

    def _known(self) -> Mapping[str, Teacher]:
        if self._teachers is None:
            self._teachers = {head: made_teacher(member) for head, member in self.of.items()}
        return self._teachers


def _packing(head: str, teacher: Teacher) -> tuple[Packed, ...]:
    return packing_in(teacher) or (Packed(head, (teacher.classes,)),)
