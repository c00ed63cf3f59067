"""How soft the teacher's answers should be for each finalist: a few temperatures, by successive halving.

The smaller a student beside its teacher, the less of a sharp answer it can follow (Mirzadeh et al. 2020, section 3;
Liu et al. 2022, "Meta knowledge distillation", arXiv 2202.07940), so the best temperature is a matter of the pair.
Every temperature is trained for a quarter of the recipe's epochs, the better half for a half of them (Jamieson &
Talwalkar 2016), and the best on the validation split is what the whole recipe is run with. Ties go to the recipe's own
temperature, then to the lower one. Writes gaps/*.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.artefacts import Precision
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.errors import Diverged
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import AccuracyKind
from edgekd.records import Record
from edgekd.search._protocol import EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.budget import Budget
from edgekd.search.recipe import epochs_of, shortened, with_precision
from edgekd.store.records import Accuracy, TrialRecord
from edgekd.store.relaxed import GapRecord
from edgekd.store.run import Run
from edgekd.students._protocol import Candidate, Stage

__all__ = ["Gap", "decided_temperature", "temperature_of", "with_temperature"]

_SHARES = (0.25, 0.5)  # of the recipe's epochs, round by round


def temperature_of(recipe: Sequence[Stage]) -> float | None:
    """The recipe's own: that of its first loss which has one that stands still; None where there is none."""
    for stage in recipe:
        for _, loss in stage.loss.parts if isinstance(stage, Distill) else ():
            found = getattr(loss, "temperature", None)
            if isinstance(found, float | int) and "temperature" not in loss.schedule:
                return float(found)
    return None


def with_temperature(recipe: Sequence[Stage], temperature: float) -> tuple[Stage, ...]:
    """The recipe with every loss that softens the teacher's answers doing so at this temperature."""
    return tuple(_softened(stage, temperature) for stage in recipe)


def decided_temperature(rounds: Sequence[Mapping[str, Accuracy]]) -> float:
    """The best of the last round. Ties go to the one that stands first."""
    last = rounds[-1]
    return float(max(last, key=lambda name: last[name].value))


@dataclass(frozen=True)
class Gap:
    """Trains what has no record yet."""

    run: Run
    temperatures: Sequence[float]
    context: EstimateContext
    events: Events
    budget: Budget

    def __call__(self, trials: Sequence[TrialRecord]) -> None:
        """One record a trial. Nothing where the recipe softens nothing. Raises Interrupted."""
        own = temperature_of(self.context.recipe)
        known = {record.trial for record in self.run.gaps()}
        if own is None or len(set(self.temperatures)) < 2:
            return
        for trial in trials:
            if trial.number not in known:
                stop_if_asked(self.events)
                self._choose(trial, own)

    def _choose(self, trial: TrialRecord, own: float) -> None:
        left = sorted(set(self.temperatures), key=lambda each: (each != own, each))
        rounds: list[dict[str, Accuracy]] = []
        for share in _SHARES:
            found: dict[str, Accuracy] = {}
            for temperature in left:
                self.events.progress("temperatures", len(found), len(left), f"{trial.candidate} at {temperature:g}")
                accuracy = self._trained(trial.candidate, temperature, share)
                if accuracy is not None:
                    found[f"{temperature:g}"] = accuracy
            if not found:
                return  # the whole recipe tells what is wrong
            rounds.append(found)
            if len(found) < 2:
                break
            order = sorted(found, key=lambda name: -found[name].value)[: (len(found) + 1) // 2]
            left = [temperature for temperature in left if f"{temperature:g}" in order]
        record = GapRecord(
            trial=trial.number,
            rounds=tuple(rounds),
            temperature=decided_temperature(rounds),
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        told = ", ".join(f"{name}: {accuracy.value:.1%}" for name, accuracy in rounds[0].items())
        self.events.line(f"softness   {trial.candidate}: temperature {record.temperature:g} of {told}")

    def _trained(self, candidate: Candidate, temperature: float, share: float) -> Accuracy | None:
        epochs = max(1, round(share * epochs_of(self.context.recipe)))
        recipe = with_temperature(shortened(self.context.recipe, epochs), temperature)
        words = f"{epochs} epochs of the recipe at temperature {temperature:g}"
        try:
            stages = with_precision(recipe, Precision.FLOAT32)
            return run_and_score(candidate, stages, self.context, AccuracyKind.TORCH, words).accuracy
        except Diverged:
            return None


def _softened(stage: Stage, temperature: float) -> Stage:
    if not isinstance(stage, Distill):
        return stage
    parts = tuple(
        (name, loss.but(temperature=temperature) if _softens(loss) else loss) for name, loss in stage.loss.parts
    )
    return stage.but(loss=Combined(parts=parts))


def _softens(loss: Record) -> bool:
    return "temperature" in type(loss).model_fields and "temperature" not in getattr(loss, "schedule", {})
