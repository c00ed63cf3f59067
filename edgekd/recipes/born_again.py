"""Born-again networks, the recipe stage `born-again`: generations of one student, each distilled from the previous one.

Furlanello et al. 2018, "Born-again neural networks", ICML: a network distilled from an equal one, trained before it,
ends better than that one. The first generation is `distill` with the project's teacher, or on labels alone without one;
each next one starts from new random weights. A student with inherited weights (a person's own model, pruned), with a
shape changed by an earlier stage, or with frozen parts has no new weights, and starts each time from those it was
given. The generation with the best validation score is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from edgekd.distill.curve import write_curve
from edgekd.distill.stage import Distill
from edgekd.errors import Problem
from edgekd.events import StageProgress
from edgekd.recipes.cohort import fresh_like, part_of_progress, validated
from edgekd.stages import StageContext
from edgekd.store.records import CurvePoint
from edgekd.students._protocol import Student

__all__ = ["BornAgain"]


class BornAgain(Distill):
    """Options of `born-again`: those of `distill`, for each generation, and the number of generations."""

    name: ClassVar[str] = "born-again"

    generations: Annotated[int, Field(ge=2)] = 2

    @model_validator(mode="after")
    def _handed_down(self) -> Self:
        if not self.loss.needs_teacher:
            raise ValueError(
                "the loss needs no teacher, so no generation would be distilled from the last: add kd, for example"
            )
        return self

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems of the first generation with the project's teacher, and of later ones with a student."""
        from edgekd.teachers.student import StudentTeacher

        later = replace(context, teacher=StudentTeacher(student, "the generation before"))
        found = [p for at in (context, later) for p in self._stage_of(at).check(student, at)]
        return list(dict.fromkeys(found))

    def prepare(self, context: StageContext) -> None:
        """Cache the outputs of the project's teacher for the first generation."""
        self._stage_of(context).prepare(context)

    @property
    def passes(self) -> int:
        """Epochs of all generations."""
        return self.epochs * self.generations

    def shortened(self, epochs: int) -> Distill:
        """Return the first generation alone, which ranks candidates equally well."""
        return self.plain(epochs=min(epochs, self.epochs))

    def run(self, student: Student, context: StageContext) -> Student:
        """Return the best generation. Finished ones are stored in ``context.folder`` and not trained again."""
        from edgekd.recipes.runner import run_recipe
        from edgekd.teachers.student import StudentTeacher

        teacher, curve, born = context.teacher, list[CurvePoint](), list[_Generation]()
        for number in range(1, self.generations + 1):
            inner = replace(
                context,
                teacher=teacher,
                folder=context.folder / f"generation-{number}",
                # a generation's logits are used by the next one only
                cache=context.cache if number == 1 else context.folder / "answers",
                seed=context.seed + number - 1,
                progress=part_of_progress(
                    context, self.name, number - 1, self.generations, f"generation {number}/{self.generations}"
                ),
            )
            fresh = None if number == 1 or self.freeze else fresh_like(student, inner.seed)
            done = run_recipe([self._stage_of(inner)], fresh or student, inner, context.folder / "students")
            offset = len(curve)
            curve += [point.but(epoch=point.epoch + offset) for point in done.curve]
            write_curve(context.folder, curve)
            born.append(_Generation(number, done.student, validated(done.student, context)))
            teacher = StudentTeacher(done.student, f"generation {number}")
        return self._kept(born, context).student

    def _stage_of(self, context: StageContext) -> Distill:
        """Return plain `distill` with the same options; on labels alone without a teacher."""
        if context.teacher is not None:
            return self.plain()
        smoothed: Mapping[str, Any] = self.loss.model_dump(mode="json").get("ce", {})
        return self.plain(loss={"ce": {**smoothed, "weight": 1.0}})

    def _kept(self, born: Sequence[_Generation], context: StageContext) -> _Generation:
        """Return the best by validation, the earliest of equals; the last if there are no validation samples."""
        best = born[-1]
        for generation in reversed(born):
            if generation.score is not None and best.score is not None and generation.score >= best.score:
                best = generation
        count = self.generations
        why = "the last: no validation samples" if best.score is None else f"validation {best.score:.1%}"
        note = f"kept generation {best.number} of {count}, {why}"
        context.progress(StageProgress(self.name, count, count, note))
        return best


@dataclass(frozen=True)
class _Generation:
    number: int  # from 1
    student: Student
    score: float | None
