"""Deep mutual learning, the recipe stage `mutual`: a cohort of students trains together, and the best is kept.

Zhang et al. 2018, "Deep mutual learning", CVPR, arXiv 1706.00384 (equations 6 and 8): each of K students learns from
the labels and from its peers' probabilities on the same views,

    L_k = CE(k) + 1 / (K - 1) * sum over l != k of KL( p_l || p_k )

No teacher is needed; with one, `loss: {kd: {}}` also teaches every student of the cohort. The cohort is trained as one
network with K outputs, by the loop and checkpoints of any other training, so it resumes bit by bit.

Difference from the paper: there a step updates one student after the other, each using outputs of already updated
peers; here all are updated at once, from the outputs before the step. Samples, views and learning rate are the same for
all; memory for weights and work are K times as large, and only one student is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from edgekd import plugins
from edgekd.distill.heads.batches import Batched
from edgekd.distill.losses.combined import Combined
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.objective import Objective
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, EdgeKDError, Problem
from edgekd.events import StageProgress
from edgekd.ir.space import Choice
from edgekd.recipes.cohort import fresh_like, renamed, scored
from edgekd.stages import StageContext
from edgekd.students._protocol import Family, Student
from edgekd.tasks._protocol import Score

__all__ = ["Mutual"]


_NO_PEERS = "use distill, or born-again"


class Mutual(Distill):
    """Options of `mutual`: those of `distill` (``loss`` is added to the peers' term), and the peers."""

    name: ClassVar[str] = "mutual"

    loss: Combined = Field(default_factory=lambda: Combined.model_validate("ce"))
    peers: PositiveInt = 2  # students of the arch itself, each with fresh weights of its own
    others: tuple[Mapping[str, Choice], ...] = ()  # further ones of other archs, by the axes that differ
    weight: NonNegativeFloat = 1.0  # of the peers' logits; the weight of the labels is in `loss`
    temperature: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _a_cohort(self) -> Self:
        if self.peers + len(self.others) < 2:
            raise PydanticCustomError("mutual", "a cohort needs two students: give peers: 2, or others")
        if self.loss.features:
            names = {"names": " and ".join(name for name, _ in self.loss.features)}
            raise PydanticCustomError(
                "mutual", "{names} compares inner activations, and a cohort has several networks", names
            )
        if self.freeze:
            raise PydanticCustomError("mutual", "frozen parts of new peers would stay random: leave freeze out")
        return self

    @property
    def passes(self) -> int:
        """Equivalent number of epochs of one student."""
        return self.epochs * (self.peers + len(self.others))

    def shortened(self, epochs: int) -> Distill:
        """Return the training of one student alone, which ranks candidates equally well."""
        return self.plain(epochs=min(epochs, self.epochs))

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems of `distill`, of identical peers, and of archs outside the family's space."""
        found = [renamed(problem, self.name) for problem in super().check(student, context)]
        if found:
            return found
        if not student.task.plain:
            message = (
                f"mutual: peers compare the logits of one classification head, and `{student.task.name}` has others"
            )
            return [Problem(message, "use distill, or born-again")]
        if self.peers > 1 and fresh_like(student, context.seed) is None:
            message = "mutual: the student starts from given weights, so its peers would all be identical"
            return [Problem(message, _NO_PEERS)]
        for changes in self.others:
            try:
                _other(student, changes, context.seed)
            except (EdgeKDError, KeyError, ValueError, RuntimeError) as error:
                message = f"mutual: no peer can be built with {dict(changes)}: {error}"
                found.append(Problem(message, f"the student's axes: {student.arch}"))
        return found

    def run(self, student: Student, context: StageContext) -> Student:
        """Return the best peer of the student's own arch, by validation. Resumes from ``context.folder``."""
        from edgekd.distill.loop import train

        problems = self.check(student, context)
        if problems:
            raise ConfigurationError(problems)
        cohort = _Cohort([copy.deepcopy(s.module) for s in self._members(student, context)]).requires_grad_(True)

        def best(module: nn.Module) -> Score:
            return max(filter(None, self._scores(student, module, context)), key=lambda score: score.value)

        with self._teacher_source(context, ()) as teacher_source:
            trained = train(
                cohort,
                self._training_data(context, teacher_source),
                _Mutual(self._smoothed(), len(cohort.members), self.weight, self.temperature),
                self._plan(student, context),
                context.folder,
                validate=best if len(context.task.split("validation")) else None,
                progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
                stop=context.stop,
                late=context.late,
            )
        scores = [None if score is None else score.value for score in self._scores(student, trained.module, context)]
        kept = max(range(self.peers), key=lambda number: (_known(scores[number]), -number))  # of equals the first
        shown = ", ".join("?" if score is None else f"{score:.1%}" for score in scores)
        note = f"kept student {kept + 1} of {self.peers}, validation {shown}"
        context.progress(StageProgress(self.name, self.epochs, self.epochs, note))
        return student.but(module=_members_of(trained.module)[kept])

    def _members(self, student: Student, context: StageContext) -> list[Student]:
        """Return the student itself, its peers with new random weights, then those of other archs."""
        alike = [fresh_like(student, context.seed + number) or student for number in range(1, self.peers)]
        seeds = range(context.seed + self.peers, context.seed + self.peers + len(self.others))
        return [student, *alike, *(_other(student, *pair) for pair in zip(self.others, seeds, strict=True))]

    def _scores(self, student: Student, module: nn.Module, context: StageContext) -> list[Score | None]:
        """Return the validation scores of the peers that may be kept."""
        return [scored(replace(student, module=m), context) for m in _members_of(module)[: self.peers]]


class _Cohort(nn.Module):
    """Several networks as one: (N, C, H, W) to (N, K * classes), one after the other."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([member(images) for member in self.members], dim=1)


class _Mutual(Objective):
    """Each student's own losses, and the peers' term, both summed over the cohort.

    A sum, not a mean: each student's gradient comes from its own terms only, so it does not depend on the cohort's
    size.
    """

    def __init__(self, loss: Combined, count: int, weight: float, temperature: float) -> None:
        super().__init__(loss, (), (), None)
        self._count, self._weight, self._temperature = count, weight, temperature

    def forward(
        self,
        outputs: Batched,
        teacher_logits: Tensor | None,
        student_seen: Mapping[str, Tensor],
        teacher_seen: Mapping[str, Tensor],
        batch: Batch,
        targets: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the batch means of the losses, each summed over the cohort, then the peers' term.

        Logits (N, K * C).
        """
        del student_seen, teacher_seen, targets
        assert isinstance(outputs, Tensor), "check() refuses several heads"
        answers = outputs.chunk(self._count, dim=1)
        own = [self._now.terms(answer, teacher_logits, batch.labels) for answer in answers]
        softened = [log_softmax(answer / self._temperature, dim=1) for answer in answers]
        pulls = []
        for k, answer in enumerate(softened):
            for peer in (*softened[:k], *softened[k + 1 :]):
                pulls.append(kl_div(answer, peer.detach(), reduction="batchmean", log_target=True))
        peers = torch.stack(pulls).sum() / (self._count - 1)
        return [
            *(torch.stack(each).sum() for each in zip(*own, strict=True)),
            self._weight * self._temperature**2 * peers,
        ]

    def names(self) -> list[str]:
        """Return the names of the losses, then `peers`."""
        return [*super().names(), "peers"]


def _members_of(cohort: nn.Module) -> list[nn.Module]:
    return list(cohort.get_submodule("members").children())


def _other(student: Student, changes: Mapping[str, Any], seed: int) -> Student:
    """Build a student of the same family with some axes changed.

    Raises ConfigurationError, or what the family raises.
    """
    from edgekd.students.student import new_student

    family: Family = plugins.load("edgekd.families", student.family).model_validate(dict(student.options))
    space = family.space(student.task)
    unknown = [axis for axis in changes if axis not in [each.name for each in space.axes]]
    if unknown:
        raise ConfigurationError.one(f"the family `{student.family}` has no axis `{unknown[0]}` here")
    return new_student(family, space.arch({**dict(student.arch.choices), **changes}), student.task, seed)


def _known(score: float | None) -> float:
    return 0.0 if score is None else score  # without samples to score, all are None
