"""Progressive growing, the recipe stage `grow`: a student starts shallow and gets deeper after each training.

Early epochs are cheap, since most of the network is missing, and inserted blocks don't change the outputs at first, so
that nothing learned is lost (Chen, Goodfellow & Shlens 2016, "Net2Net", ICLR, arXiv 1511.05641; Wen et al. 2020,
"AutoGrow", KDD, arXiv 1906.02909). Each step is a `distill` with the same options and a restarted learning rate. A
student of one block for each stage has a single step, so that a search may compare it with deeper ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveInt

from edgekd import plugins
from edgekd.distill.curve import write_curve
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Problem
from edgekd.recipes.cohort import part_of_progress, renamed
from edgekd.stages import StageContext
from edgekd.store.records import CurvePoint
from edgekd.students._protocol import Family, Growing, Student

__all__ = ["Grow"]

_STEPS = 3  # assumed to estimate a training before the student is known


class Grow(Distill):
    """Options of `grow`: those of `distill`, for each step."""

    name: ClassVar[str] = "grow"

    epochs: PositiveInt = 10  # of each step

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems of any step."""
        family = _family(student)
        if not isinstance(family, Growing):
            return [
                Problem(
                    f"grow: students of the family {student.family} can't grow",
                    "use: distill, or the family resnet or mobilenet",
                )
            ]
        stage = self.plain()
        found = [p for s in self._students(family, student, context) for p in stage.check(s, context)]
        return list(dict.fromkeys(renamed(problem, self.name) for problem in found))

    @property
    def passes(self) -> int:
        """Total epochs, for a student of a usual number of steps."""
        return self.epochs * _STEPS

    def shortened(self, epochs: int) -> Distill:
        """Return a training of the whole student with few epochs, which ranks candidates equally well."""
        return self.plain(epochs=min(epochs, self.epochs))

    def run(self, student: Student, context: StageContext) -> Student:
        """Return the grown student. Finished steps are stored in ``context.folder`` and not trained again."""
        from edgekd.recipes.runner import run_recipe

        problems = self.check(student, context)
        family = _family(student)
        if problems or not isinstance(family, Growing):
            raise ConfigurationError(problems)
        steps = self._students(family, student, context)
        grown, curve = steps[0], list[CurvePoint]()
        for number, step in enumerate(steps):
            if number:
                transferred = family.transfer_weights(grown.module, grown.arch, step.module, step.arch)
                grown = step.but(module=transferred)
            inner = replace(
                context,
                folder=context.folder / f"step-{number + 1}",
                progress=part_of_progress(context, self.name, number, len(steps), str(grown.arch)),
            )
            done = run_recipe([self.plain()], grown, inner, context.folder / "students")
            offset = len(curve)
            curve += [point.but(epoch=point.epoch + offset) for point in done.curve]
            write_curve(context.folder, curve)
            grown = done.student
        return grown

    def _students(self, family: Growing, student: Student, context: StageContext) -> list[Student]:
        """Return one student for each step, each without the blocks that come later; the last is the given one."""
        from edgekd.students.student import new_student

        found = []
        for arch in family.growth_schedule(student.arch):
            fresh = new_student(_family(student), arch, student.task, context.seed)
            found.append(fresh.but(module=family.transfer_weights(student.module, student.arch, fresh.module, arch)))
        return [*found, student]


def _family(student: Student) -> Family:
    family: Family = plugins.load("edgekd.families", student.family).model_validate(dict(student.options))
    return family
