"""Distillation of one arch through the whole recipe, on every backend of the target: the command ``distill``.

Refining, judging and certifying are those of a search, with nothing proposed: one finalist per backend.
"""

from __future__ import annotations

import time

from edgekd.devices._protocol import DeviceSession
from edgekd.errors import ConfigurationError
from edgekd.events import Events
from edgekd.export.converter import Converter
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.ir.support import unsupported
from edgekd.project import Project
from edgekd.search.budget import Budget
from edgekd.search.finalists.order import NO_TRIAL, refine_one
from edgekd.search.finalists.selection import FinalistSelection
from edgekd.search.finalists.stagewise import Stagewise
from edgekd.search.finalists.trainer import RecipeTrainer
from edgekd.search.outcome.ending import finish, nothing_fits, outcome_of_best
from edgekd.search.plan import certify_plan, trial_plan
from edgekd.search.recipe import quantized_to
from edgekd.search.search import context_of, spent_before
from edgekd.store.records import Deployment, OutcomeRecord
from edgekd.store.run import Run

__all__ = ["candidates_of", "run_single"]


def run_single(
    project: Project,
    run: Run,
    session: DeviceSession,
    converter: Converter,
    events: Events,
    started: float | None = None,
    arch: Arch | None = None,
) -> OutcomeRecord:
    """Train, export, measure and certify one arch. The caller holds ``run.writing()``. Raises as `run_search` does.

    ``arch`` may be left out where the project's space has one arch only; the precision is the recipe's own.
    """
    outcome = run.outcome()
    if outcome is not None:
        return outcome
    before = 0.0 if started is None else time.monotonic() - started
    budget = Budget(None, time.monotonic, spent_before(run) + before)
    trainer = RecipeTrainer(run, context_of(project, run, events), session, converter, project.export)
    done = {finalist.rank for finalist in run.finalists()}
    for rank, candidate in enumerate(candidates_of(project, arch), start=1):
        if rank not in done:
            events.line(f"refining   {candidate}")
            refine_one(run, rank, NO_TRIAL, candidate, trainer, events, budget)
    plan = certify_plan(project.target, run.header.seed)
    selection = FinalistSelection(run, plan, session, trainer, events, budget)
    selection.judge_side_by_side()
    winner = selection.certify()
    brief = trial_plan(project.target, run.header.seed)
    made = [finalist for finalist in run.finalists() if finalist.artefact is not None]
    Stagewise(run, brief, session, trainer, events, budget)(winner or next(iter(made), None))
    return finish(run, outcome_of_best(run, winner) if winner is not None else nothing_fits(run), budget)


def candidates_of(project: Project, arch: Arch | None) -> list[Candidate]:
    """The one arch on every backend of the target, at the recipe's own precision. Raises ConfigurationError."""
    space = project.family.space(project.task.spec)
    if arch is None and space.size > 1:
        axes = ", ".join(axis.name for axis in space.axes if len(axis.choices) > 1)
        raise ConfigurationError.one(
            f"the student's space has {space.size} archs, and one is wanted: {axes} still have a choice",
            "give each axis one choice, or use: edgekd search",
        )
    precision = quantized_to(project.recipe) or Precision.FLOAT32
    if project.target.fully_integer and precision is not Precision.INT8:
        raise ConfigurationError.one(
            f"target {project.target.name} is fully integer, and the recipe ends in {precision.value}",
            "end the recipe with: quantize: {precision: int8}",
        )
    problems = [problem for backend in project.target.backends for problem in unsupported(precision, backend)]
    if problems:
        raise ConfigurationError(problems)
    return [
        Deployment(backend=backend, precision=precision).candidate(project.family.name, arch or space.at(0))
        for backend in project.target.backends
    ]
