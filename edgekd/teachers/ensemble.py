"""`ensemble`: the average of several teachers of one task.

``average: logits`` (the default) is the weighted mean of their logits. ``average: probabilities`` is the logarithm of
the mean of their probabilities, so that a temperature above 1 keeps its meaning; use it for members whose logits have
different sizes.

``weighting: confidence`` weights each member, sample by sample, by a share that decreases with the entropy H of its
softmax, so that confident members count more (Kwon et al. 2020, "Adaptive knowledge distillation based on entropy",
ICASSP, also gives lower entropy a larger share)::

    share_m(x) = w_m exp(-H_m(x)) / sum_n w_n exp(-H_n(x)),    H_m(x) = -sum_c p_mc log p_mc

exp(H) is the effective number of classes, so shares are proportional to its inverse; w are the ``weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PrivateAttr, ValidationInfo, field_validator, model_validator
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.records import Digest, Record, digest_json
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.nested import made_teacher, prepared_teacher, resolved_teachers, untrained_teacher

if TYPE_CHECKING:
    from edgekd.events import StageProgress

__all__ = ["EnsembleTeacher"]


class EnsembleTeacher(Record):
    """Options of `ensemble`: members, each with the options of a teacher (``kind: torch, ...``), and their weights."""

    members: Annotated[tuple[Mapping[str, Any], ...], Field(min_length=2)]
    weights: tuple[PositiveFloat, ...] | None = None
    weighting: Literal["fixed", "confidence"] = "fixed"
    average: Literal["logits", "probabilities"] = "logits"
    _teachers: tuple[Teacher, ...] | None = PrivateAttr(None)

    @field_validator("members")
    @classmethod
    def _resolved(cls, members: tuple[Mapping[str, Any], ...], info: ValidationInfo) -> tuple[Mapping[str, Any], ...]:
        """Validate each member, and make its paths absolute while the project's folder is known."""
        return tuple(resolved_teachers(enumerate(members), info.context))

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
        return self

    @property
    def name(self) -> str:
        """Names of the members."""
        return " + ".join(teacher.name for teacher in self._known())

    @property
    def classes(self) -> int:
        """Number of classes of the members. Raises ConfigurationError before `bound`."""
        return self._known()[0].classes

    def digest(self) -> Digest:
        """Return the identity of members, weights, weighting and average."""
        identity = {
            "members": [teacher.digest() for teacher in self._known()],
            "weights": self._shares(),
            "average": self.average,
        }
        return digest_json({**identity, "weighting": self.weighting} if self.weighting != "fixed" else identity)

    def prepare(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> EnsembleTeacher:
        """Return the ensemble with its members trained where needed. Raises Interrupted when ``stop()``."""
        ready = self.but()
        ready._teachers = tuple(prepared_teacher(member, task, cache, progress, stop) for member in self._known())
        return ready

    def untrained(self, spec: TaskSpec) -> EnsembleTeacher:
        """Return what ``prepare`` returns, with random weights for members to be trained."""
        sketched = self.but()
        sketched._teachers = tuple(untrained_teacher(member, spec) for member in self._known())
        return sketched

    def bound(self, spec: TaskSpec) -> EnsembleTeacher:
        """Return the ensemble with every member bound. Raises ConfigurationError naming the member that doesn't fit."""
        from edgekd.teachers.binding import bind

        bound = self.but()
        bound._teachers = tuple(bind(teacher, spec) for teacher in self._known())
        return bound

    def logits(self, batch: Tensor) -> Tensor:
        """Return averaged logits (N, classes), float32, for raw-unit batches (N, C, H, W)."""
        answers = [teacher.logits(batch) for teacher in self._known()]
        if len({answer.shape for answer in answers}) > 1:
            counts = ", ".join(f"{t.name} {a.shape[1]}" for t, a in zip(self._known(), answers, strict=True))
            raise ConfigurationError.one(
                f"the members have different numbers of classes: {counts}", "give members of one task"
            )
        stacked = torch.stack(answers)
        log_probabilities = torch.log_softmax(stacked, dim=2)
        weights = torch.tensor(self._shares()).log().reshape(-1, 1, 1)
        if self.weighting == "confidence":
            entropy = torch.special.entr(log_probabilities.exp()).sum(2, keepdim=True)
            weights = torch.log_softmax(weights - entropy, dim=0)  # (members, N, 1)
        if self.average == "logits":
            return (weights.exp() * stacked).sum(0)
        return torch.logsumexp(log_probabilities + weights, dim=0)

    def _shares(self) -> tuple[float, ...]:
        weights = self.weights or (1.0,) * len(self.members)
        return tuple(weight / sum(weights) for weight in weights)

    def _known(self) -> tuple[Teacher, ...]:
        if self._teachers is None:
            self._teachers = tuple(made_teacher(member) for member in self.members)
        return self._teachers
