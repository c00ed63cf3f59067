"""Iterative pruning: shrink one model until it meets the target (``search: {by: iterative}`` of `edgekd compress`).

Each iteration tries every next smaller step of the space (measured side by side; latency does not depend on weights),
takes the one worth most (`shrinking`), prunes the student *of the iteration before* with all it has learned, recovers
it by a few epochs of the recipe, or by all of it where accuracy is below the floor otherwise, and measures it as the
verdict will. Iteration 0 is the untouched model, which is trained in that last case alone. Where the limits hold, the
whole recipe follows, and then the same checks as for any finalist. It ends without a student where a step gains too
little, where accuracy stays below the floor after the whole recipe, or when the time is up.

Reads the family, the target and rounds/*.json; writes those and finalists/*.json. An iteration's step is written before
it is trained, so that a resumed run takes the same one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgekd.artefacts import Backend
from edgekd.devices._protocol import DeviceSession, MeasurePlan
from edgekd.errors import ConfigurationError, NothingFits
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import AccuracyKind, accuracy_of, find_figure
from edgekd.export.converter import Converter
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.measure.sentinel import judge_measured
from edgekd.project import Project
from edgekd.recipes.runner import run_recipe
from edgekd.records import Digest
from edgekd.search.accuracy.recalibrate import Recalibrate
from edgekd.search.accuracy.scoring import score_student, stage_context
from edgekd.search.budget import Budget, Speed, training_limit_s
from edgekd.search.finalists.order import NO_TRIAL, refine_one
from edgekd.search.finalists.selection import FinalistSelection
from edgekd.search.finalists.stagewise import Stagewise
from edgekd.search.finalists.trainer import RecipeTrainer
from edgekd.search.iterative.original import Original
from edgekd.search.iterative.shrinking import chosen_step, gain_wanted, next_steps, why_stopped
from edgekd.search.outcome.ending import finish, outcome_of_best
from edgekd.search.outcome.nearest import nearest_finalists
from edgekd.search.plan import make_plan
from edgekd.search.recipe import calibrating, quantized_to, shortened, with_precision
from edgekd.search.search import context_of, spent_before
from edgekd.search.space.feasible import p5_us
from edgekd.search.trials.measuring import Bench, Measured
from edgekd.search.trials.untrained import UntrainedBuilder
from edgekd.stages import Stage
from edgekd.store.records import (
    Accuracy,
    FinalistRecord,
    OutcomeRecord,
    PlanRecord,
    RoundObservation,
    RoundOption,
    RoundRecord,
)
from edgekd.store.run import Run
from edgekd.students._protocol import Family, Inheriting, Shrinking, Student
from edgekd.students.student import load_student, new_student
from edgekd.tasks._protocol import TaskSpec
from edgekd.units import format_us

__all__ = ["run_rounds", "whole_of"]


def run_rounds(
    project: Project,
    run: Run,
    session: DeviceSession,
    converter: Converter,
    events: Events,
    started: float | None = None,
) -> OutcomeRecord:
    """Shrink, recover and measure until the target's limits hold. The caller holds ``run.writing()``.

    Raises as `run_search` does, and ConfigurationError where the family's students can't shrink.
    """
    outcome = run.outcome()
    if outcome is not None:
        return outcome
    family, whole = whole_of(project.family, project.task.spec)
    plan = run.plan()
    if plan is None:
        plan = make_plan(project, run.header.budget_s, run.header.seed)
        run.write(plan)
    before = 0.0 if started is None else time.monotonic() - started
    budget = Budget(run.header.budget_s, time.monotonic, spent_before(run) + before)
    builder = UntrainedBuilder.of(project, converter, run.header)
    bench = Bench(builder, session, run.target, run, time.monotonic)
    Original(run, plan, bench, context_of(project, run, events), events, budget)()
    bench = replace(bench, target=run.target)  # limits relative to one's own model are known now
    return _Rounds(project, run, plan, bench, converter, events, budget, family, whole)()


def whole_of(family: Family, spec: TaskSpec) -> tuple[Shrinking, Arch]:
    """Return the family and the arch of the first iteration. Raises ConfigurationError where there is none."""
    whole = family.original(spec) if isinstance(family, Inheriting) else None
    if not isinstance(family, Shrinking) or whole is None:
        raise ConfigurationError.one(
            f"by: iterative begins with the whole of a trained model, and the family `{family.name}` has none here",
            "leave search.by out; or use student: {family: pruned, ...} with 1.0 among its ratios",
        )
    return family, whole


@dataclass(frozen=True)
class _Rounds:
    project: Project
    run: Run
    plan: PlanRecord
    bench: Bench
    converter: Converter
    events: Events
    budget: Budget
    family: Shrinking
    whole: Arch

    def __call__(self) -> OutcomeRecord:
        while True:
            stop_if_asked(self.events)
            rounds = self.run.rounds()
            last = rounds[-1] if rounds else self._begin()
            if last.arch is not None and not last.observations:
                last = self._measured(last)
            winner = self._certified_round(last)
            if winner is not None:
                return finish(self.run, outcome_of_best(self.run, winner), self.budget)
            why = why_stopped(last, self._floor)
            if not why and self.budget.left_s() <= 0:
                why = "the time was used up"
            if why:
                return finish(self.run, self._nothing(why), self.budget)
            self._step(last)

    @property
    def precision(self) -> Precision:
        """Precision of the recipe."""
        return quantized_to(self.project.recipe) or Precision.FLOAT32

    @property
    def _floor(self) -> float | None:
        limits = self.run.target.limits
        return next((limit.bound for limit in limits if limit.hard and limit.metric == "accuracy"), None)

    def _begin(self) -> RoundRecord:
        """Record iteration 0: the untouched model."""
        record = RoundRecord(number=0, before=None, options=(), arch=self.whole)
        self.run.write(record)
        return record

    def _step(self, last: RoundRecord) -> None:
        """Try every next step and record the one taken."""
        assert last.arch is not None
        assert last.best is not None
        archs = (last.arch, *next_steps(self.plan.space, last.arch))
        candidates = [self._candidate(arch, last.best.backend) for arch in archs]
        measured, noise = self._bench(candidates, self.plan.measure, pair=True)
        student = self._student(last)
        tried = [self._option(student, last.arch, arch, one) for arch, one in zip(archs, measured, strict=True)]
        wanted = gain_wanted(self.run.target, last)
        limits = self.plan.rounds
        assert limits is not None
        chosen = chosen_step(tried[0], tried[1:], wanted, limits.least_gain, noise)
        record = RoundRecord(
            number=last.number + 1,
            before=tried[0],
            options=tuple(tried[1:]),
            arch=chosen.arch if chosen else None,
            noise=noise,
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)

    def _option(self, student: Student, before: Arch, arch: Arch, measured: Measured) -> RoundOption:
        stop_if_asked(self.events)
        artefact = measured.conversion.artefact
        smaller = student if arch == before else self._shrunk(student, before, arch)
        fresh = Recalibrate().run(smaller, stage_context(None, context_of(self.project, self.run, self.events)))
        return RoundOption(
            arch=arch,
            p5_us=p5_us(measured.figures),
            size_bytes=artefact.size_bytes if artefact else None,
            accuracy=score_student(fresh, self.project.task, AccuracyKind.INHERITED, "").value,
            detail=measured.detail,
        )

    def _measured(self, record: RoundRecord) -> RoundRecord:
        """Recover the student of this iteration's step, measure it on every backend, and record it."""
        assert record.arch is not None
        start = self._whole()
        stages: Sequence[Stage] = ()
        recovered: Literal["", "short", "full"] = ""
        if record.number:
            before = self.run.rounds()[record.number - 1]
            assert before.arch is not None
            assert self.plan.rounds is not None
            start = self._shrunk(self._student(before), before.arch, record.arch)
            stages, recovered = (Recalibrate(), *shortened(self.project.recipe, self.plan.rounds.recover)), "short"
        key, accuracy = self._trained(stages, start)
        if self._floor is not None and accuracy.value < self._floor:
            first = [Recalibrate()] if record.number else []
            key, accuracy = self._trained([*first, *self.project.recipe], start)
            recovered = "full"
        backends = self.run.target.backends
        candidates = [self._candidate(record.arch, backend) for backend in backends]
        measured, _ = self._bench(candidates, self.plan.certify, pair=False)
        done = record.but(
            student=key,
            recovered=recovered,
            accuracy=accuracy,
            observations=tuple(self._observation(b, m, accuracy, key) for b, m in zip(backends, measured, strict=True)),
            ended_s=self.budget.spent_s(),
        )
        self.run.write(done)
        self.events.line(_round_line(done))
        return done

    def _trained(self, stages: Sequence[Stage], start: Student) -> tuple[Digest, Accuracy]:
        """Train; return the key of the float32 student and its accuracy at the precision it will ship with."""
        end_s = self.budget.spent_s() + training_limit_s(self.plan, Speed(), self.budget, ensured=False)
        where = stage_context(None, context_of(self.project, self.run, self.events))
        where = replace(where, late=lambda: self.budget.spent_s() > end_s)
        plain = run_recipe(with_precision(stages, Precision.FLOAT32), start, where, self.run.students)
        own = calibrating(self.project.recipe)
        ready = plain.student
        if own:
            candidate = self._candidate(start.arch, self.run.target.backends[0])
            where = replace(where, backend=candidate.backend)
            ready = run_recipe([own[-1]], plain.student, where, self.run.students).student
        words = f"{len(plain.curve)} epochs of recovery" if plain.curve else "BatchNorm recalibrated"
        words = words if stages else "as it came"
        return plain.key, score_student(ready, self.project.task, AccuracyKind.TORCH, words)

    def _observation(self, backend: Backend, measured: Measured, accuracy: Accuracy, key: Digest) -> RoundObservation:
        method = f"{accuracy.method}, {accuracy.split} split, {accuracy.samples} samples, by {accuracy.kind.value}"
        scored = accuracy_of(accuracy.value, key, method)
        figures = (*measured.figures, scored) if measured.figures else ()
        artefact = measured.conversion.artefact
        return RoundObservation(
            backend=backend,
            measurement=measured.measurement,
            figures=figures,
            verdict=judge_measured(self.run.target, figures, measured.measurement),
            size_bytes=artefact.size_bytes if artefact else None,
            detail=measured.detail,
        )

    def _certified_round(self, last: RoundRecord) -> FinalistRecord | None:
        """Run the whole recipe and certify an iteration whose limits hold; None where they don't, or not after
        training.
        """
        best = last.best
        if last.arch is None or best is None or not best.verdict.holds or last.student is None:
            return None
        candidate = self._candidate(last.arch, best.backend)
        context = context_of(self.project, self.run, self.events)
        trainer = RecipeTrainer(
            self.run, context, self.bench.session, self.converter, self.project.export, self._student(last)
        )
        finalists = self.run.finalists()
        if candidate not in [finalist.candidate for finalist in finalists]:
            self.events.line(f"refining   {candidate}")
            limit_s = training_limit_s(self.plan, Speed(), self.budget)
            refine_one(self.run, len(finalists) + 1, NO_TRIAL, candidate, trainer, self.events, self.budget, limit_s)
        selection = FinalistSelection(
            self.run, self.plan.certify, self.bench.session, trainer, self.events, self.budget
        )
        selection.judge_side_by_side()
        winner = selection.certify()
        if winner is not None:
            Stagewise(self.run, self.plan.measure, self.bench.session, trainer, self.events, self.budget)(winner)
        return winner

    def _nothing(self, why: str) -> OutcomeRecord:
        target, done = self.run.target, [r for r in self.run.rounds() if r.observations]
        detail = nearest_finalists(self.run.finalists()) if self.run.finalists() else ()
        shown = [_round_line(record) for record in done[-3:]]
        summary = f"{len(done) - 1} rounds, and {target.name} is not met: {why}"
        return OutcomeRecord(
            exit_code=NothingFits.exit_code, summary=summary, chosen=None, seconds=0.0, detail=(*detail, *shown)
        )

    def _bench(
        self, candidates: Sequence[Candidate], plan: MeasurePlan, pair: bool
    ) -> tuple[Sequence[Measured], float]:
        return self.bench.measure(
            candidates,
            plan.but(profile=False),
            pair=pair,
            progress=lambda what, done, total: self.events.progress("shrinking", done, total, what),
            stop=lambda: stop_if_asked(self.events),
        )

    def _candidate(self, arch: Arch, backend: Backend) -> Candidate:
        plan = CompressionPlan(precision=self.precision)
        return Candidate(family=self.run.header.family, arch=arch, plan=plan, backend=backend)

    def _whole(self) -> Student:
        return new_student(self.project.family, self.whole, self.project.task.spec, self.run.header.seed)

    def _student(self, record: RoundRecord) -> Student:
        """Load this iteration's student, float32."""
        assert record.student is not None
        return load_student(self.run.students / record.student)

    def _shrunk(self, student: Student, before: Arch, after: Arch) -> Student:
        module = self.family.shrink(student.module, before, after, self.project.task.spec)
        return student.but(module=module, arch=after)


def _round_line(record: RoundRecord) -> str:
    best = record.best
    low = find_figure(best.figures, "latency.p5") if best else None
    speed = f"{format_us(low.value)} p5 on {best.backend}" if best and low else "runs nowhere"
    score = f"{record.accuracy.value:.1%}" if record.accuracy else "not scored"
    answer = best.verdict.answer.value if best else "unknown"
    return f"round {record.number:<4} {record.arch}: {score} validation, {speed}: {answer}"
