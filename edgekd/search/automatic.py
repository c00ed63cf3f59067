"""Choice of loss and augmentations for ``recipe: auto``, by short trainings; the winners go into the recipe.

Reads auto.json and continues from it; writes it after every training, so a resumed run trains nothing twice and a run
that has chosen never chooses again. Candidates are trained on the arch in the middle of the space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Diverged
from edgekd.events import Events, stop_if_asked
from edgekd.ir.space import Arch
from edgekd.project import Project
from edgekd.recipes.auto import Auto, standing_of
from edgekd.recipes.cohort import validated
from edgekd.recipes.runner import run_recipe
from edgekd.search.accuracy.scoring import stage_context
from edgekd.search.search import context_of, spent_before
from edgekd.stages import StageContext
from edgekd.store.records import AutoOption, AutoRecord, AutoScore
from edgekd.store.run import Run
from edgekd.students._protocol import Student
from edgekd.students.student import new_student

__all__ = ["resolved_recipe"]

Phase = Literal["loss", "views"]
_ABOVE_CHANCE = 2.0  # times the score of guessing
_LOSSES_PART = 0.6  # of the share, about their part of all epochs: augmentations must be compared too


def resolved_recipe(
    project: Project, run: Run, events: Events, started: float | None = None, now: Callable[[], float] = time.monotonic
) -> Project:
    """Return the project with each `auto` replaced by a `distill` stage; unchanged where there is none.

    The caller holds ``run.writing()``. Raises ConfigurationError where there is nothing to choose by, or every
    candidate fails, and Interrupted.
    """
    autos = [stage for stage in project.recipe if isinstance(stage, Auto)]
    if not autos:
        return project
    if len(autos) > 1:
        raise ConfigurationError.one(
            "the recipe has `auto` more than once", "one auto is one distill: write the others"
        )
    record = run.auto()
    if record is None or not record.ended:
        begun = now() if started is None else started
        before = spent_before(run)
        record = _Choosing(project, run, events, autos[0], lambda: before + now() - begun)()
    events.line(record.line())
    chosen = Distill.model_validate(record.chosen)
    return replace(project, recipe=tuple(chosen if isinstance(s, Auto) else s for s in project.recipe))


@dataclass(frozen=True)
class _Choosing:
    project: Project
    run: Run
    events: Events
    auto: Auto
    spent_s: Callable[[], float]

    def __call__(self) -> AutoRecord:
        if not len(self.project.task.split("validation")):
            raise ConfigurationError.one(
                "recipe: auto chooses by validation samples, and the task has none",
                "give it some, or write a recipe",
            )
        record = self.run.auto() or AutoRecord(arch=self._arch(), options=(), scores=(), least=self._least())
        record = self._halved(record, "loss", self.auto.losses())
        loss = self._leader(record, "loss")
        record = self._halved(record, "views", self.auto.views(loss))
        views = self._leader(record, "views")
        late = not (self._over(record, "loss") and self._over(record, "views"))
        done = record.but(
            loss=loss,
            views=views,
            chosen=self.auto.views(loss)[views].model_dump(mode="json"),
            ended="time" if late else "done",
            ended_s=self.spent_s(),
        )
        self.run.write(done)
        return done

    def _halved(self, record: AutoRecord, phase: Phase, stages: Mapping[str, Distill]) -> AutoRecord:
        """Run one phase of successive halving while time remains. The first training of a phase always runs."""
        student, where = self._student(record.arch), self._where()
        if not any(option.phase == phase for option in record.options):
            checked = [
                AutoOption(phase=phase, name=name, why_not="; ".join(p.message for p in stage.check(student, where)))
                for name, stage in stages.items()
            ]
            record = record.but(options=(*record.options, *checked))
            self.run.write(record)
        while (todo := standing_of(record, phase, self.auto).todo) is not None:
            part = _LOSSES_PART if phase == "loss" else 1.0
            late = self.spent_s() > part * self.auto.share * (self.run.header.budget_s or float("inf"))
            if late and self._has_leader(record, phase):
                break
            stop_if_asked(self.events)
            name, epochs = todo
            self.events.progress("auto", len(record.scores), 0, f"{name}, {epochs} epochs")
            score = AutoScore(phase=phase, option=name, epochs=epochs, validation=None)
            try:
                result = run_recipe([stages[name].but(epochs=epochs)], student, where, self.run.students)
                score = score.but(validation=validated(result.student, where))
            except Diverged as error:
                score = score.but(detail=error.message)
            record = record.but(scores=(*record.scores, score), ended_s=self.spent_s())
            self.run.write(record)
        return record

    def _leader(self, record: AutoRecord, phase: Phase) -> str:
        leader = standing_of(record, phase, self.auto).leader
        scored = {score.option: score for score in record.of(phase) if score.validation is not None}
        if leader is None or leader not in scored:
            reasons = [option.why_not for option in record.options if option.phase == phase and option.why_not]
            reasons += [score.detail for score in record.of(phase) if score.detail]
            raise ConfigurationError.one(
                f"recipe: auto found no {phase} that can be trained: {'; '.join(dict.fromkeys(reasons))}",
                "write a recipe: edgekd losses lists what there is",
            )
        return leader

    def _has_leader(self, record: AutoRecord, phase: Phase) -> bool:
        return any(score.validation is not None for score in record.of(phase))

    def _over(self, record: AutoRecord, phase: Phase) -> bool:
        return standing_of(record, phase, self.auto).todo is None

    def _least(self) -> float:
        spec = self.project.task.spec
        if spec.metric.name != "top1":
            return 0.0
        chance = 1.0 / spec.head.classes
        # with two classes, twice chance is 100 %, which nothing reaches
        return min(_ABOVE_CHANCE * chance, (1.0 + chance) / 2)

    def _arch(self) -> Arch:
        """Return the middle of every axis; with an even number of choices, the smaller of the two."""
        space = self.project.family.space(self.project.task.spec)
        return space.arch({axis.name: axis.choices[(len(axis.choices) - 1) // 2] for axis in space.axes})

    def _student(self, arch: Arch) -> Student:
        return new_student(self.project.family, arch, self.project.task.spec, self.run.header.seed)

    def _where(self) -> StageContext:
        return stage_context(None, context_of(self.project, self.run, self.events))
