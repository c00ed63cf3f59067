"""Teacher tuning of each finalist: a few temperatures, with and without an assistant, by successive halving.

The smaller a student beside its teacher, the less of a sharp answer it can follow, and the more a network between the
two may help (Mirzadeh et al. 2020, "Improved knowledge distillation via teacher assistant", AAAI); so the best setting
depends on the pair. Each is trained for a quarter of the recipe's epochs, the better half for a half of them (Jamieson
& Talwalkar 2016), and the whole recipe is run with the best on the validation split. Ties go to the recipe's own
temperature, then to the lower one, then to the teacher. Writes teacher-tunings/*.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from edgekd.distill.losses._protocol import Loss, Term
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.errors import Diverged
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import AccuracyKind
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.search._protocol import EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.budget import Budget
from edgekd.search.recipe import cut_to_time, epochs_of, shortened_to, with_precision
from edgekd.stages import Stage
from edgekd.store.differentiable import TeacherTuningRecord
from edgekd.store.differentiable_options import AssistantOptions
from edgekd.store.records import Accuracy, TrialRecord
from edgekd.store.run import Run
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.binding import bind
from edgekd.teachers.nested import made_teacher, prepared_teacher

__all__ = [
    "TeacherTuning",
    "TeachingSetting",
    "assistant_of",
    "decided",
    "recipes_tried",
    "settings_of",
    "temperature_of",
    "with_temperature",
]

_ASSISTED = "assistant, "
_SHARES = (0.25, 0.5)  # of the recipe's epochs, round by round


def temperature_of(recipe: Sequence[Stage]) -> float | None:
    """Temperature of the recipe: that of its first loss with a constant one; None where there is none."""
    for stage in recipe:
        for _, loss in stage.loss.parts if isinstance(stage, Distill) else ():
            found = _temperature(loss)
            if found is not None:
                return found
    return None


def with_temperature(recipe: Sequence[Stage], temperature: float) -> tuple[Stage, ...]:
    """Return the recipe with this temperature in every loss that softens the teacher's logits."""
    return tuple(_softened(stage, temperature) for stage in recipe)


def decided(rounds: Sequence[Mapping[str, Accuracy]]) -> TeachingSetting:
    """Best setting of the last round. Ties go to the first in order."""
    last = rounds[-1]
    best = max(last, key=lambda name: last[name].value)
    return TeachingSetting(float(best.removeprefix(_ASSISTED)), best.startswith(_ASSISTED))


def assistant_of(run: Run, options: AssistantOptions, context: EstimateContext) -> Teacher:
    """Return the assistant, trained by the project's own teacher or loaded if already trained. Raises Interrupted."""
    written = {"kind": "train", **options.model_dump(mode="json"), "teacher": run.header.project["teacher"]}
    teacher = made_teacher(written)
    return bind(
        prepared_teacher(teacher, context.task, context.cache, context.progress, context.stop), context.task.spec
    )


class TeachingSetting(NamedTuple):
    """Teaching setting: temperature, with or without the assistant."""

    temperature: float
    assisted: bool

    def __str__(self) -> str:
        return f"{_ASSISTED if self.assisted else ''}{self.temperature:g}"


def settings_of(own: float, temperatures: Sequence[float], assisted: bool) -> list[TeachingSetting]:
    """Settings to try, in the order that breaks ties; ``own`` is the recipe's temperature."""
    ordered = sorted(set(temperatures) or {own}, key=lambda each: (each != own, each))
    return [
        TeachingSetting(temperature, by) for temperature in ordered for by in ((False, True) if assisted else (False,))
    ]


def recipes_tried(ways: int) -> float:
    """Cost of one finalist's tuning, in whole recipes."""
    if ways < 2:
        return 0.0
    return sum(share * math.ceil(ways * 0.5**number) for number, share in enumerate(_SHARES))


@dataclass(frozen=True)
class TeacherTuning:
    """Tunes the trials that have no record yet."""

    run: Run
    temperatures: Sequence[float]
    assistant: AssistantOptions | None
    context: EstimateContext
    events: Events
    budget: Budget

    def __call__(self, trials: Sequence[TrialRecord]) -> None:
        """Write one record per trained trial; report a line where no loss has a temperature. Raises Interrupted."""
        own = temperature_of(self.context.recipe)
        known = {record.trial for record in self.run.teacher_tunings()}
        if own is None and (self.temperatures or self.assistant is not None):
            self.events.line("taught     as the recipe says: no loss in it has one temperature that stands still")
        if own is None or len(self._ways(own)) < 2:
            return
        for trial in trials:
            if trial.number not in known and not trial.candidate.plan.untouched:
                stop_if_asked(self.events)
                self._choose(trial, own)

    def _ways(self, own: float) -> list[TeachingSetting]:
        return settings_of(own, self.temperatures, self.assistant is not None and self.context.teacher is not None)

    def _choose(self, trial: TrialRecord, own: float) -> None:
        left = self._ways(own)
        rounds: list[dict[str, Accuracy]] = []
        for share in _SHARES:
            found: dict[str, Accuracy] = {}
            for way in left:
                self.events.progress("teaching", len(found), len(left), f"{trial.candidate} at {way}")
                accuracy = self._trained(trial.candidate, way, share)
                if accuracy is not None:
                    found[str(way)] = accuracy
            if not found:
                return  # the whole recipe will report the error
            rounds.append(found)
            if len(found) < 2:
                break
            best = sorted(found, key=lambda name: -found[name].value)[: (len(found) + 1) // 2]
            left = [way for way in left if str(way) in best]
        way = decided(rounds)
        record = TeacherTuningRecord(
            trial=trial.number,
            rounds=tuple(rounds),
            temperature=way.temperature,
            assistant=way.assisted,
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        scores = ", ".join(f"{name}: {accuracy.value:.1%}" for name, accuracy in rounds[0].items())
        self.events.line(f"taught     {trial.candidate}: best at {way}, of {scores}")

    def _trained(self, candidate: Candidate, way: TeachingSetting, share: float) -> Accuracy | None:
        whole = cut_to_time(self.context.recipe, self.run.proposals())
        recipe = with_temperature(shortened_to(whole, share), way.temperature)
        words = f"{epochs_of(recipe)} epochs of the recipe at temperature {way}"
        context = self.context
        if way.assisted and self.assistant is not None:
            context = replace(context, teacher=assistant_of(self.run, self.assistant, context))
        try:
            stages = with_precision(recipe, Precision.FLOAT32)
            return run_and_score(candidate, stages, context, AccuracyKind.TORCH, words).accuracy
        except Diverged:
            return None


def _softened(stage: Stage, temperature: float) -> Stage:
    if not isinstance(stage, Distill):
        return stage
    parts = tuple(
        (name, loss if _temperature(loss) is None else loss.but(temperature=temperature))
        for name, loss in stage.loss.parts
    )
    return stage.but(loss=Combined(parts=parts))


def _temperature(loss: Term) -> float | None:
    """Temperature of a loss on logits, where it is constant. The `temperature` of `crd` is of another kind."""
    found = getattr(loss, "temperature", None) if isinstance(loss, Loss) else None
    return float(found) if isinstance(found, float | int) and "temperature" not in loss.schedule else None
