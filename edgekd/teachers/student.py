"""Student as a teacher: one trained here first, an assistant between two sizes, or the previous generation."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.records import Digest, digest_json
from edgekd.students._protocol import Student
from edgekd.students.weights import state_digest
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.normalise import normalised
from edgekd.teachers.packing import Packed, packed, packing_of

__all__ = ["StudentTeacher"]


class StudentTeacher:
    """Teacher that is a trained student.

    Identified by its weights: the same training with other weights is another teacher.

    ``taught_by`` is its own teacher, bound to the same task, if it had one.
    """

    def __init__(self, student: Student, name: str, taught_by: Teacher | None = None) -> None:
        self._name, self._student, self.taught_by = name, student, taught_by
        self._module = copy.deepcopy(student.module).eval().requires_grad_(False)
        self._packing: tuple[Packed, ...] = ()
        if not student.task.plain:
            with torch.no_grad():
                self._packing = packing_of(self._module(torch.from_numpy(student.task.input.example())))
        self._digest = digest_json(
            {
                "teacher": "student",
                "family": student.family,
                "options": dict(student.options),
                "arch": student.arch.model_dump(mode="json"),
                "task": student.task.digest(),
                "weights": state_digest(self._module),
            }
        )

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._name

    @property
    def classes(self) -> int:
        """Number of the task's classes; with several heads, length of a packed row."""
        return sum(part.size for part in self._packing) or self._student.task.head.classes

    @property
    def packing(self) -> tuple[Packed, ...]:
        """Layout of raw outputs if the task isn't plain."""
        return self._packing

    def digest(self) -> Digest:
        """Return the identity of its construction and weights."""
        return self._digest

    def network(self) -> nn.Module:
        """Return the student's module, frozen, in eval mode."""
        return self._module

    def prepared(self, batch: Tensor) -> Tensor:
        """Normalise as the student's task specifies; token ids are unchanged."""
        if self._student.task.input.text is not None:
            return batch.to(torch.int32)
        return normalised(batch, self._student.task.input.mean, self._student.task.input.std)

    def rows(self, answers: Any) -> Tensor:
        """Return logits as they are, or several heads' raw outputs packed: (N, classes) float32."""
        return packed(answers) if self._packing else answers.float()

    def logits(self, batch: Tensor) -> Tensor:
        """Return logits (N, classes), float32, without gradient, for raw-unit batches (N, C, H, W)."""
        with torch.inference_mode():
            rows = self.rows(self._module(self.prepared(batch)))
        return rows.clone()  # a tensor of inference mode can't take part in a loss
