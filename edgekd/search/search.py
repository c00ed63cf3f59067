"""Whole search, from the space to a certified finalist. Every step reads finished work from the run folder.

`run_search` wires the real parts; `Search` runs any parts, so that tests search thousands of candidates in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgekd import plugins
from edgekd.artefacts import Artefact
from edgekd.devices._protocol import DeviceSession
from edgekd.errors import ConfigurationError, Unstable
from edgekd.events import Events, StageProgress
from edgekd.evidence import Figure
from edgekd.export.converter import Converter
from edgekd.export.kernels.read import kernels_of_file
from edgekd.ir.kernels import Kernels
from edgekd.ir.plan import Candidate
from edgekd.measure.bandwidth import measure_bandwidth
from edgekd.measure.contention import DriftBaseline
from edgekd.project import Project, cache_folder
from edgekd.recipes.runner import check_recipe
from edgekd.search._protocol import (
    AccuracyEstimate,
    ArtefactBuilder,
    CandidateRanking,
    EstimateContext,
    FinalistTrainer,
    Sampler,
    StaticAnalyser,
)
from edgekd.search.accuracy.scoring import stage_context
from edgekd.search.accuracy.untrained_own import AsItCame
from edgekd.search.budget import Budget, Speed, reserve_s, shortlist_s, stagewise_s, too_short, training_limit_s
from edgekd.search.deployments.recheck import Recheck, rechecked
from edgekd.search.differentiable.step import DifferentiableSteps
from edgekd.search.differentiable.teacher_tuning import TeacherTuning
from edgekd.search.differentiable.training import supernet_family, supernet_stage
from edgekd.search.finalists.order import as_they_came, rank_correlation, refine_one
from edgekd.search.finalists.selection import FinalistSelection
from edgekd.search.finalists.shortlist import Shortlist, standing
from edgekd.search.finalists.stagewise import Stagewise
from edgekd.search.finalists.trainer import RecipeTrainer
from edgekd.search.iterative.original import Original
from edgekd.search.outcome.ending import finish, nothing_fits, outcome_of_best
from edgekd.search.plan import analysis_size, make_plan
from edgekd.search.space.analysis import FamilyAnalyser
from edgekd.search.space.feasible import accuracy_floor
from edgekd.search.space.filters import Allowed
from edgekd.search.space.predicted_filter import PredictedFilter
from edgekd.search.space.prior_tables import prior_tables
from edgekd.search.trials.loop import TrialLoop
from edgekd.search.trials.measuring import Bench
from edgekd.search.trials.steps import FirstSteps
from edgekd.search.trials.untrained import UntrainedBuilder
from edgekd.stages import Prepares
from edgekd.store.records import (
    DeploymentsRecord,
    FeaturesRecord,
    FinalistRecord,
    OutcomeRecord,
    PlanRecord,
    TrialRecord,
)
from edgekd.store.run import Run
from edgekd.students.analysis import why_one_by_one
from edgekd.students.student import new_student
from edgekd.units import format_bytes

__all__ = ["Parts", "Search", "context_of", "run_search", "spent_before"]


@dataclass(frozen=True)
class Parts:
    """Parts of a search that turn candidates into facts."""

    analyser: StaticAnalyser
    builder: ArtefactBuilder
    sampler: Sampler
    estimate: AccuracyEstimate
    context: EstimateContext
    trainer: FinalistTrainer
    session: DeviceSession
    bandwidth: Callable[[int], Figure] | None = None  # of a working set in bytes; None where nothing measures it
    kernels_of: Callable[[Artefact], Kernels] | None = None  # of a file; None: nothing is kept for later searches


def run_search(
    project: Project,
    run: Run,
    session: DeviceSession,
    converter: Converter,
    events: Events,
    started: float | None = None,
) -> OutcomeRecord:
    """Search, refine, choose and certify. The caller holds ``run.writing()``.

    ``started`` is when the command began (``time.monotonic``): the budget counts from there. Finding nothing is an
    outcome with exit code 5, and not being able to tell one with 6. Raises ConfigurationError, MissingError and
    Interrupted; whatever is finished is kept, and the same call goes on.
    """
    plan = run.plan()
    if plan is None:
        plan = make_plan(project, run.header.budget_s, run.header.seed)
        if plan.predict:
            run.write(prior_tables(run, plan, events))
        run.write(plan)
        if caution := too_short(plan, run.header.budget_s):
            events.line(f"caution    {caution}")
    context = context_of(project, run, events)
    if run.features() is None:
        if plan.differentiable is not None:
            supernet_family(project.family).block_costs(project.task.spec)
            supernet_stage(project.recipe)
        _check_training(context)
        slow = why_one_by_one(project.family, project.task.spec)
        if slow:
            events.line(f"survey     each arch is traced by itself, which takes longer: {slow}")
    parts = Parts(
        analyser=FamilyAnalyser(project.family, project.task.spec),
        builder=UntrainedBuilder.of(project, converter, run.header),
        sampler=plugins.load("edgekd.samplers", plan.sampler)(),
        estimate=AsItCame(project.accuracy),
        context=context,
        trainer=RecipeTrainer(run, context, session, converter, project.export),
        session=session,
        bandwidth=lambda working_bytes: _bandwidth(session, working_bytes),
        kernels_of=kernels_of_file,
    )
    return Search(run, plan, parts, events, time.monotonic, started)()


def _bandwidth(session: DeviceSession, working_bytes: int) -> Figure:
    (figure,) = measure_bandwidth(session, [working_bytes])
    if figure is None:
        raise Unstable(f"no process could move {format_bytes(working_bytes)} of memory", "see edgekd doctor")
    return figure


def _check_training(context: EstimateContext) -> None:
    """Check the training stages before any candidate is measured. Raises ConfigurationError."""
    stages = [stage for stage in context.recipe if isinstance(stage, Prepares)]
    student = new_student(
        context.family, context.family.space(context.task.spec).at(0), context.task.spec, context.seed
    )
    problems = check_recipe(stages, student, stage_context(None, context))
    if problems:
        raise ConfigurationError(problems)


def context_of(project: Project, run: Run, events: Events) -> EstimateContext:
    """Training context of this run."""

    def show(progress: StageProgress) -> None:
        events.progress(progress.stage, progress.done, progress.total, progress.note)

    return EstimateContext(
        task=project.task,
        teacher=project.teacher,
        family=project.family,
        recipe=project.recipe,
        fingerprint=run.header.fingerprint,
        students=run.students,
        stages=run.stages,
        cache=cache_folder(),
        seed=run.header.seed,
        progress=show,
        stop=events.stop,
    )


def spent_before(run: Run) -> float:
    """Seconds this run has worked so far, by its latest record."""
    auto = run.auto()
    original, proposals, shortlist, stages = run.original(), run.proposals(), run.shortlist(), run.stages_record()
    ends = [
        *(record.ended_s for record in run.predictors()),
        original.ended_s if original else 0.0,
        proposals.ended_s if proposals else 0.0,
        shortlist.ended_s if shortlist else 0.0,
        stages.ended_s if stages else 0.0,
        auto.ended_s if auto else 0.0,
    ]
    ends += [reference_arch.ended_s for reference_arch in run.reference_archs()] + [
        trial.ended_s for trial in run.trials()
    ]
    ends += [record.ended_s for record in run.rounds()]
    model, supernet = run.latency_model(), run.supernet()
    ends += [model.ended_s if model else 0.0, supernet.ended_s if supernet else 0.0]
    ends += [batch.ended_s for batch in run.latencies()] + [tuning.ended_s for tuning in run.teacher_tunings()]
    ends += [recheck.ended_s for recheck in run.rechecks()] + [finalist.ended_s for finalist in run.finalists()]
    return max(ends)


@dataclass(frozen=True)
class Search:
    """Steps of a search in order. Calling it runs those that are not finished."""

    run: Run
    plan: PlanRecord
    parts: Parts
    events: Events
    now: Callable[[], float]
    started: float | None = None

    def __call__(self) -> OutcomeRecord:
        """Run to the outcome. Raises MissingError and Interrupted."""
        outcome = self.run.outcome()
        if outcome is not None:
            return outcome
        before = 0.0 if self.started is None else self.now() - self.started
        budget = Budget(self.run.header.budget_s, self.now, spent_before(self.run) + before)
        parts = self.parts
        seen = [
            r.measurement
            for reference_arch in self.run.reference_archs()
            for r in reference_arch.observations
            if r.measurement
        ]
        bench = Bench(
            parts.builder,
            parts.session,
            self.run.target,
            self.run,
            self.now,
            parts.kernels_of,
            DriftBaseline(seen),
            self.events.line,
        )
        Original(self.run, self.plan, bench, self.parts.context, self.events, budget)()
        bench = replace(bench, target=self.run.target)  # limits relative to one's own model are known now
        steps = FirstSteps(self.run, self.plan, self.parts.analyser, bench, budget, self.events)
        features = steps.features(analysis_size(self.plan, self.run.header.budget_s))
        filtered = steps.filters(features)
        if not filtered.left:
            removed = {report.name: report.removed for report in filtered.record.filters}
            return finish(self.run, nothing_fits(self.run, removed=removed), budget)
        deployments, allowed = steps.deployments(features, filtered)
        wanted = self._propose(features, filtered.left, allowed, deployments, bench, budget)
        return self._finish_finalists(deployments, wanted, bench, budget)

    def _propose(
        self,
        features: FeaturesRecord,
        left: Sequence[int],
        allowed: Allowed,
        deployments: DeploymentsRecord,
        bench: Bench,
        budget: Budget,
    ) -> int:
        ended = self.run.proposals()
        if ended is None:
            space = self.plan.space
            by_arch = dict(zip(map(space.at, features.indices), features.features, strict=True))
            ranking: CandidateRanking | None = None
            if self.plan.differentiable is not None:
                steps = DifferentiableSteps(
                    self.run, self.plan, self.plan.differentiable, self.parts.analyser, bench, self.parts.context,
                    self.parts.bandwidth, self.events, budget,
                )  # fmt: skip
                ranking, allowed, near = steps(features, left, deployments)
                by_arch |= near
            predicted_filter = (
                PredictedFilter(self.run, self.plan, features, deployments, allowed) if self.plan.predict else None
            )
            loop = TrialLoop(
                self.run, self.plan, allowed, deployments, self.parts.sampler, bench, by_arch, self.parts.estimate,
                self.parts.context, budget, self.events, ranking, predicted_filter,
            )  # fmt: skip
            ended = loop()
        self.events.line(f"searched   {ended.trials} trials; {ended.detail}")
        return ended.finalists

    def _finish_finalists(
        self, deployments: DeploymentsRecord, wanted: int, bench: Bench, budget: Budget
    ) -> OutcomeRecord:
        target, trials = self.run.target, self.run.trials()
        speed = Speed.of(self.plan, trials, target, deployments.tails)
        order = standing(target, deployments, trials, None)
        if shortlist_s(self.plan, speed) > 0:
            shortlist = Shortlist(self.run, self.plan, bench, self.events, budget)
            order = standing(target, deployments, trials, shortlist(order, wanted + as_they_came(order)))
        own = as_they_came(order)  # in addition to the wanted ones: they cost no training
        recheck = Recheck(self.run, self.plan, deployments, bench, self.events, budget)
        selection = FinalistSelection(
            self.run, self.plan.certify, self.parts.session, self.parts.trainer, self.events, budget
        )
        winner = None
        # beyond the wanted number only while nothing holds, and never more than twice as many
        for goal in range(own + wanted, own + 2 * wanted + 1):
            if self.plan.recheck:
                recheck(order[:goal])
            trained = {found for found in self._rechecked(deployments, order[:goal]) if not found.plan.untouched}
            if len(trained) < wanted and goal < min(len(order), own + 2 * wanted):
                continue  # two trials rechecked to the same deployment are one finalist: the next trial takes the place
            if self.plan.differentiable is not None:
                asked = self.plan.differentiable
                tuning = TeacherTuning(
                    self.run, asked.temperatures, asked.assistant, self.parts.context, self.events, budget
                )
                tuning(order[:goal])
            self._refine(deployments, order[:goal], speed, budget)
            selection.judge_side_by_side()
            winner = selection.certify()
            if winner is not None or goal >= len(order) or budget.left_s() < reserve_s(self.plan, speed, 1):
                break
        self._stage_by_stage(winner, speed, budget)
        finalists = self.run.finalists()
        outcome = (
            outcome_of_best(self.run, winner) if winner is not None else nothing_fits(self.run, tails=deployments.tails)
        )
        return finish(self.run, outcome.but(estimate=rank_correlation(trials, finalists)), budget)

    def _stage_by_stage(self, winner: FinalistRecord | None, speed: Speed, budget: Budget) -> None:
        """Write the stage-by-stage comparison, where there is more than one stage and time for it."""
        stages = len(self.parts.context.recipe)
        if (
            winner is None
            or winner.candidate.plan.untouched
            or not stages
            or budget.left_s() < stagewise_s(self.plan, speed, stages + 1)
        ):
            return
        parts = self.parts
        Stagewise(self.run, self.plan.measure, parts.session, parts.trainer, self.events, budget)(winner)

    def _rechecked(self, deployments: DeploymentsRecord, trials: tuple[TrialRecord, ...]) -> list[Candidate]:
        rechecks = {record.trial: record for record in self.run.rechecks()}
        return [rechecked(self.run.target, deployments, t.candidate, rechecks.get(t.number)) for t in trials]

    def _refine(
        self, deployments: DeploymentsRecord, trials: tuple[TrialRecord, ...], speed: Speed, budget: Budget
    ) -> None:
        taken = {finalist.candidate for finalist in self.run.finalists()}
        for rank, (trial, candidate) in enumerate(
            zip(trials, self._rechecked(deployments, trials), strict=True), start=1
        ):
            if candidate in taken:
                continue
            trained = any(not known.plan.untouched for known in taken)
            late = budget.left_s() < reserve_s(self.plan, speed, 1)
            if trained and late and not candidate.plan.untouched:
                self.events.line(f"refined    {len(taken)} of {len(trials)}: no time for another")
                return
            self.events.line(f"refining   {rank} of {len(trials)}: {candidate}")
            taken.add(candidate)
            finalists = self.run.finalists()
            waiting = 1 + sum(finalist.verdict is None for finalist in finalists)
            floor = accuracy_floor(self.run.target)
            ensured = not any(
                finalist.candidate.plan.untouched and finalist.accuracy and finalist.accuracy.value >= floor
                for finalist in finalists
            )
            limit_s = training_limit_s(self.plan, speed, budget, waiting, ensured)
            refine_one(self.run, rank, trial.number, candidate, self.parts.trainer, self.events, budget, limit_s)
