"""Replay: make every decision again from a run's records and compare; the same facts give the same decisions.

Reads the whole run folder, measures and trains nothing, runs no project code, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from pydantic import Field

from edgekd import plugins
from edgekd.errors import ConfigurationError, Place
from edgekd.ir.space import Arch
from edgekd.measure.sentinel import judge_measured
from edgekd.recipes.auto import Auto, standing_of
from edgekd.records import Record, Shown
from edgekd.search.deployments.ranking import final_deployments, still_in
from edgekd.search.deployments.recheck import rechecked
from edgekd.search.deployments.reference_archs import choose_reference_archs
from edgekd.search.differentiable.replay import differentiable_decisions, recorded_ranking
from edgekd.search.finalists.selection import chosen_of, is_simulated, ranked_by_merit
from edgekd.search.finalists.shortlist import standing
from edgekd.search.iterative.original import limits_beside
from edgekd.search.iterative.shrinking import chosen_step, gain_wanted
from edgekd.search.space.feasible import is_feasible, may_hold
from edgekd.search.space.filters import Allowed, apply_filters
from edgekd.search.space.predicted_filter import PredictedFilter
from edgekd.search.trials.loop import knowledge_before, propose_batch
from edgekd.search.trials.whole_model import affordable_shares, first_reference_arch
from edgekd.store.records import AutoRecord, DeploymentsRecord, FeaturesRecord, PlanRecord, RoundsPlan
from edgekd.store.run import Run

__all__ = ["ReplayReport", "ReplayedStep", "replay"]


class ReplayedStep(Record):
    """Result for one kind of decision: number replayed, and those that differ."""

    name: str
    decisions: int
    differ: tuple[str, ...] = ()


class ReplayReport(Shown):
    """Report of a replay."""

    schema_: Literal["edgekd.replay/1"] = Field(default="edgekd.replay/1", alias="schema")
    run: str
    steps: tuple[ReplayedStep, ...]

    @property
    def same(self) -> bool:
        """True if every decision was reproduced."""
        return not any(step.differ for step in self.steps)

    @property
    def exit_code(self) -> int:
        """0, or 1 if not `same`: a decision that can't be reproduced is a fault of edgekd (or of a file changed by
        hand).
        """
        return 0 if self.same else 1

    def lines(self) -> list[str]:
        """Format the report as text lines."""
        total = sum(step.decisions for step in self.steps)
        wrong = sum(len(step.differ) for step in self.steps)
        head = f"all {total} decisions reproduced" if self.same else f"{wrong} of {total} decisions came out otherwise"
        lines = [head]
        for step in self.steps:
            lines.append(f" {step.name:<10} {step.decisions - len(step.differ)} of {step.decisions} the same")
            lines += [f"   {difference}" for difference in step.differ]
        return lines


def replay(run: Run) -> ReplayReport:
    """Replay the decisions of a run so far. Raises ConfigurationError where its files can't be read."""
    return ReplayReport(run=str(run.folder), steps=tuple(_steps(run)))


def _steps(run: Run) -> Iterator[ReplayedStep]:
    plan, features, auto = run.plan(), run.features(), run.auto()
    if auto is not None and auto.ended:
        yield _auto(run, auto)
    original = run.original()
    if original is not None and run.header.target.relative:
        limits = limits_beside(run.header.target, original.accuracy, original.observations)
        yield _step("own", [("original.json: limits relative to the model as it came", limits == original.target)])
    if plan is not None and features is not None:
        filtered = apply_filters(run.target, plan, features)
        recorded = run.filters()
        if recorded is not None:
            yield _step("filters", [("filters.json", filtered.record == recorded)])
        if filtered.left and run.reference_archs():
            archs = choose_reference_archs(plan, features, filtered.left, first_reference_arch(run, plan))
            yield _reference_archs(run, plan, archs)
            deployments = run.deployments()
            if deployments is not None:
                again, allowed = final_deployments(run.target, plan, features, filtered, archs, run.reference_archs())
                yield _step("deployments", [("deployments.json", _decided(again) == _decided(deployments))])
                for name, decisions in differentiable_decisions(run, plan, features, filtered.left, deployments):
                    yield _step(name, decisions)
                yield _proposals(run, plan, features, allowed, deployments)
                yield _outcomes(run, deployments)
                yield _finalists(run, deployments)
    if plan is not None and plan.rounds is not None:
        yield _rounds(run, plan.rounds)
    yield _verdicts(run)
    yield _choice(run)


def _step(name: str, decisions: list[tuple[str, bool]]) -> ReplayedStep:
    return ReplayedStep(name=name, decisions=len(decisions), differ=tuple(what for what, same in decisions if not same))


def _decided(deployments: DeploymentsRecord) -> tuple[object, ...]:
    """Decisions in a deployments record, without their wording."""
    filters = [(one.name, one.removed) for one in deployments.filters]
    return (
        deployments.reference_archs,
        deployments.kept,
        [dropped.deployment for dropped in deployments.dropped],
        deployments.noise,
        deployments.tail,
        filters,
    )


def _reference_archs(run: Run, plan: PlanRecord, archs: tuple[Arch, ...]) -> ReplayedStep:
    """Replay the choice of the reference archs, and of the deployments measured on each."""
    found, reference_archs = list[tuple[str, bool]](), run.reference_archs()
    for number, reference_arch in enumerate(reference_archs):
        alive = set(still_in(run.target, plan, reference_archs[:number]))
        same = archs[number : number + 1] == (reference_arch.arch,) and alive <= {
            observation.deployment for observation in reference_arch.observations
        }
        found.append((f"reference-archs/{number:02d}.json", same))
    return _step("reference_archs", found)


def _proposals(
    run: Run, plan: PlanRecord, features: FeaturesRecord, allowed: Allowed, deployments: DeploymentsRecord
) -> ReplayedStep:
    trials = run.trials()
    sampler = plugins.load("edgekd.samplers", plan.sampler)()
    by_number = {trial.number: trial for trial in trials}
    if sorted(by_number) != list(range(len(trials))):
        missing = min(set(range(len(trials))) - set(by_number))
        raise ConfigurationError.one(
            f"trial {missing} is missing, so later ones can't be replayed",
            "restore the file, or resume the run",
            Place(str(run.path("trials"))),
        )
    found = list[tuple[str, bool]]()
    ranking, allowed = recorded_ranking(run, plan, allowed)
    predicted_filter = PredictedFilter(run, plan, features, deployments, allowed)
    macs = {index: row.macs for index, row in zip(features.indices, features.features, strict=True)}
    for batch in sorted({trial.batch for trial in trials}):
        affordable = affordable_shares(run, plan, deployments, trials, batch)
        left = predicted_filter.at(batch, trials, affordable)
        known = knowledge_before(run, plan, left, deployments, trials, batch, ranking, affordable, macs)
        for number, asked, candidate in propose_batch(sampler, known, run.header.seed):
            trial = by_number.get(number)
            if trial is not None:  # an interrupted batch has fewer files than proposals
                same = (trial.batch, trial.asked, trial.candidate) == (batch, asked, candidate)
                found.append((f"trials/{number:04d}.json: {candidate} instead of {trial.candidate}", same))
    return _step("proposals", found)


def _outcomes(run: Run, deployments: DeploymentsRecord) -> ReplayedStep:
    """Replay whether each trial that ran was feasible."""
    ran = [trial for trial in run.trials() if trial.outcome in ("measured", "over-budget")]
    target = run.target
    found = []
    for trial in ran:
        fits = is_feasible(target, trial.but(outcome="measured"), deployments.tails)
        fits = fits and (not trial.undecided or may_hold(target, trial.figures, deployments.tails))
        found.append((f"trials/{trial.number:04d}.json", fits == (trial.outcome == "measured")))
    return _step("fits", found)


def _finalists(run: Run, deployments: DeploymentsRecord) -> ReplayedStep:
    target = run.target
    order = standing(target, deployments, run.trials(), run.shortlist())
    rechecks = {record.trial: record for record in run.rechecks()}
    found = list[tuple[str, bool]]()
    for finalist in run.finalists():
        same = finalist.rank <= len(order) and order[finalist.rank - 1].number == finalist.trial
        if same:
            trial = order[finalist.rank - 1]
            same = rechecked(target, deployments, trial.candidate, rechecks.get(trial.number)) == finalist.candidate
        found.append((f"finalists/{finalist.rank:02d}.json", same))
    return _step("finalists", found)


def _auto(run: Run, record: AutoRecord) -> ReplayedStep:
    """Replay the leading loss and augmentations of ``recipe: auto``, by the recorded scores."""
    (written,) = [given["auto"] for given in run.header.project["recipe"] if "auto" in given]
    auto = Auto.model_validate(written)
    loss, views = standing_of(record, "loss", auto).leader, standing_of(record, "views", auto).leader
    return _step("auto", [("auto.json: loss", loss == record.loss), ("auto.json: views", views == record.views)])


def _rounds(run: Run, plan: RoundsPlan) -> ReplayedStep:
    """Replay the step of each iteration, and its students' verdicts."""
    found, target = list[tuple[str, bool]](), run.target
    for before, record in pairwise(run.rounds()):
        if record.before is not None:
            wanted = gain_wanted(target, before)
            chosen = chosen_step(record.before, record.options, wanted, plan.least_gain, record.noise)
            found.append((f"rounds/{record.number:02d}.json", record.arch == (chosen.arch if chosen else None)))
    for record in run.rounds():
        for observation in record.observations:
            again = judge_measured(target, observation.figures, observation.measurement)
            found.append((f"rounds/{record.number:02d}.json on {observation.backend}", again == observation.verdict))
    return _step("rounds", found)


def _verdicts(run: Run) -> ReplayedStep:
    found = list[tuple[str, bool]]()
    for finalist in run.finalists():
        if finalist.verdict is not None:
            again = judge_measured(run.target, finalist.figures, finalist.measurement or finalist.seen)
            found.append((f"finalists/{finalist.rank:02d}.json", again == finalist.verdict))
    return _step("verdicts", found)


def _choice(run: Run) -> ReplayedStep:
    """Replay the choice: the first by merit whose certificate figures held, with all before it tried."""
    outcome, finalists = run.outcome(), run.finalists()
    if outcome is None:
        return _step("choice", [])
    winner = chosen_of(finalists)
    ranked = ranked_by_merit(run.target, finalists)
    ranks = [finalist.rank for finalist in ranked]
    known = winner is None or winner.rank in ranks
    before = ranked if winner is None or not known else ranked[: ranks.index(winner.rank)]
    tried = all(finalist.measurement is not None for finalist in before) or all(map(is_simulated, before))
    same = known and tried and outcome.chosen == (winner.rank if winner else None)
    return _step("choice", [(f"outcome.json chose {outcome.chosen}", same)])
