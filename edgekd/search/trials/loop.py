"""Trial loop: propose a batch, make and measure it, estimate accuracy, write it down, until time is up.

Reads everything from the run folder and writes trials/*.json and proposals.json. A trial's file is written once, when
it ends; a resumed loop proposes the unfinished batch again (the same knowledge and seeds give the same proposals) and
runs only trials without a file. Training and measuring never overlap: a batch is measured first, then trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from edgekd.devices._protocol import Progress
from edgekd.errors import DeviceUnreachable, Diverged
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import EvidenceKind, find_figure
from edgekd.ir.features import StaticFeatures
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.search._protocol import AccuracyEstimate, CandidateRanking, EstimateContext, Knowledge, Sampler
from edgekd.search.accuracy.scoring import stage_context
from edgekd.search.budget import Budget, Speed, finalists_within, least_reserve_s, reserve_s, share_within
from edgekd.search.deployments.ranking import rivals
from edgekd.search.finalists.order import as_it_came_first, as_they_came, order_of_finalists
from edgekd.search.recipe import epochs_of
from edgekd.search.space.feasible import P5, holds_untrained, may_hold, misses, trial_violations, violations
from edgekd.search.space.filters import Allowed, at_precision
from edgekd.search.space.predicted_filter import PredictedFilter
from edgekd.search.trials.chance_level import at_chance
from edgekd.search.trials.files import keep_newest
from edgekd.search.trials.measuring import Bench, Measured
from edgekd.search.trials.sampler import seed_of
from edgekd.search.trials.whole_model import affordable_shares, known_of_whole, whole_us, without_whole
from edgekd.stages import Prepares
from edgekd.store.records import Deployment, DeploymentsRecord, PlanRecord, ProposalsRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.units import format_us

__all__ = ["TrialLoop", "as_it_came", "knowledge_before", "propose_batch"]

_STUDENTS_BYTES = 4 * 1024**3  # disk space of trials' students; hundreds of large ones would fill it
_DIVERGED = 2  # candidates that are given up before a third one ends the search


def knowledge_before(
    run: Run,
    plan: PlanRecord,
    allowed: Allowed,
    deployments: DeploymentsRecord,
    trials: Sequence[TrialRecord],
    batch: int,
    ranking: CandidateRanking | None = None,
    affordable: Mapping[Deployment, float] = {},
    macs: Mapping[int, int] = {},
) -> Knowledge:
    """Knowledge at the time a batch was proposed: the trials of all earlier batches."""
    earlier = tuple(trial for trial in trials if trial.batch < batch)
    return Knowledge(
        family=run.header.family,
        plan=plan,
        allowed=without_whole(allowed, plan, affordable, earlier),
        deployments=deployments.kept,
        trials=earlier,
        violations={trial.number: trial_violations(run.target, trial, deployments.tails) for trial in earlier},
        ranking=ranking,
        affordable=affordable,
        macs=macs,
        known_whole={each.deployment for each in known_of_whole(run.target, plan, deployments)},
        whole_us=whole_us(plan, deployments),
    )


def propose_batch(sampler: Sampler, knowledge: Knowledge, seed: int) -> list[tuple[int, int, Candidate]]:
    """Propose the next batch as (number, seed, candidate); shorter, or empty, where the space is used up.

    The user's own untouched model, on every kept deployment where it may fit, comes before all others, in batches:
    first where it is not measured again.
    """
    start, found = len(knowledge.trials), list[tuple[int, int, Candidate]]()
    in_batches = knowledge.plan.skips_missed
    begun = knowledge.proposed if in_batches else knowledge.trials
    if not begun and (own := as_it_came(knowledge)):
        most = knowledge.plan.batch if in_batches else len(own)
        known = [one for one in own if Deployment.of(one) in knowledge.known_whole]
        own = known or _fastest_first(own, knowledge) or own
        return [(number, seed_of(seed, number), candidate) for number, candidate in enumerate(own[:most], start)]
    count = knowledge.plan.batch
    if knowledge.plan.trials is not None:
        count = min(count, knowledge.plan.trials - len(knowledge.proposed))
    for number in range(start, start + count):
        asked = seed_of(seed, number)
        candidate = sampler.propose(knowledge, asked)
        if candidate is None:
            break
        found.append((number, asked, candidate))
        knowledge = replace(knowledge, pending=(*knowledge.pending, candidate))
    return found


def _fastest_first(own: Sequence[Candidate], knowledge: Knowledge) -> list[Candidate]:
    """Candidates of the untouched model that were timed as a reference arch, the fastest first: their files are there.

    None for a plan made before this rule.
    """
    timed = {one: knowledge.whole_us[at] for one in own if (at := Deployment.of(one)) in knowledge.whole_us}
    return sorted(timed, key=lambda one: timed[one])


def as_it_came(knowledge: Knowledge) -> list[Candidate]:
    """Untried candidates of the untouched model, one for each kept deployment that allows it.

    The space's last index is the whole model.
    """
    arch, whole = knowledge.plan.original, knowledge.plan.space.size - 1
    tried = {Deployment.of(trial.candidate) for trial in knowledge.trials if trial.candidate.plan.untouched}
    return [
        Candidate(
            family=knowledge.family,
            arch=arch,
            plan=CompressionPlan(precision=deployment.precision, untouched=True),
            backend=deployment.backend,
        )
        for deployment in knowledge.deployments
        if arch is not None and whole in knowledge.allowed.get(deployment, ())
        if deployment not in tried
    ]


@dataclass(frozen=True)
class TrialLoop:
    """Runs trials until the budget, the space or the wanted number is used up."""

    run: Run
    plan: PlanRecord
    allowed: Allowed
    deployments: DeploymentsRecord
    sampler: Sampler
    bench: Bench
    features: Mapping[Arch, StaticFeatures]  # at float32
    estimate: AccuracyEstimate
    context: EstimateContext
    budget: Budget
    events: Events
    ranking: CandidateRanking | None = None
    predicted_filter: PredictedFilter | None = None

    def __call__(self) -> ProposalsRecord:
        """Run trials and return the end of proposing. Raises Interrupted; finished trials are kept."""
        done = {trial.number: trial for trial in self.run.trials()}
        batch = 0
        while True:
            sizes = [trial.batch for trial in done.values() if not trial.candidate.plan.untouched]
            if sizes.count(batch) == self.plan.batch:
                batch += 1  # a whole batch of an earlier session, which continued after it
                continue
            seen = tuple(done.values())
            affordable = affordable_shares(self.run, self.plan, self.deployments, seen, batch)
            knowledge = knowledge_before(
                self.run, self.plan, self.allowed, self.deployments, seen, batch, self.ranking, affordable, self._macs
            )
            if not done and (slow := [str(d) for d in affordable if knowledge.allowed.get(d) != self.allowed.get(d)]):
                self.events.line(f"own model  too slow to be tried as it came: {', '.join(slow)}")
            if self.predicted_filter is not None:
                own = () if knowledge.proposed else as_it_came(knowledge)
                if not any(Deployment.of(one) in knowledge.known_whole for one in own):  # those need no prediction
                    self.predicted_filter.fit_before(batch, seen, self.events, self.budget)
                allowed = self.predicted_filter.at(batch, seen, affordable)
                allowed = without_whole(allowed, self.plan, affordable, knowledge.trials)
                knowledge = replace(knowledge, allowed=allowed)
            proposals = propose_batch(self.sampler, knowledge, self.run.header.seed)
            missing = [proposal for proposal in proposals if proposal[0] not in done]
            if missing or not proposals:
                ended = self._end(knowledge, proposals)
                if ended is None and self._prepare(candidate for _, _, candidate in missing):
                    ended = self._end(knowledge, proposals)  # less time is left now
                # a begun batch is finished: otherwise no later proposal would see its measured part
                if ended and len(missing) == len(proposals):
                    self.run.write(ended)
                    return ended
            if missing:
                done.update({trial.number: trial for trial in self._batch(batch, missing, done)})
            batch += 1

    @cached_property
    def _macs(self) -> dict[int, int]:
        """Multiply-adds of each analysed arch by its index."""
        return {self.plan.space.index(arch): features.macs for arch, features in self.features.items()}

    def _prepare(self, candidates: Iterable[Candidate]) -> bool:
        """Compute the teacher's logits before the first student is trained. Returns whether that was done now.

        All students share them. An untouched model needs none; within a trial they would count as its training time.
        """
        stages = [stage for stage in self.context.recipe if isinstance(stage, Prepares)]
        trained = [trial for trial in self.run.trials() if not trial.candidate.plan.untouched]
        if not stages or trained or all(candidate.plan.untouched for candidate in candidates):
            return False
        for stage in stages:
            stage.prepare(stage_context(None, self.context))
        return True

    def _end(self, knowledge: Knowledge, proposals: Sequence[tuple[int, int, Candidate]]) -> ProposalsRecord | None:
        trials, total_s = knowledge.trials, self.budget.total_s
        order = as_it_came_first(order_of_finalists(self.run.target, self.deployments, trials))
        own = as_they_came(order)
        most = self._rivals(order[: own + self.plan.finalists])
        speed = Speed.of(self.plan, trials, self.run.target, self.deployments.tails)
        finalists = finalists_within(self.plan, speed, total_s, most, own)
        reserved = reserve_s(self.plan, speed, finalists, most, own)
        # a batch must end before the reserve begins, and takes about as long as those before it
        batch_s = _batch_s(trials)
        if not any(trial.accuracy and not trial.candidate.plan.untouched for trial in trials):
            batch_s += self._first_training_s(speed, [candidate for _, _, candidate in proposals])
        # where the untouched model holds and nothing else was tried, a first batch may use the finalists' time; where
        # it does not, that batch is tried in any case: there is nothing else to hand over
        holds = any(holds_untrained(self.run.target, trial, self.deployments.tails) for trial in trials)
        needed_s = batch_s if holds else float("-inf")
        if knowledge.proposed:
            found = any(not trial.candidate.plan.untouched for trial in order)
            needed_s = batch_s + (
                reserved if found else least_reserve_s(self.plan, speed, finalists, reserved, total_s)
            )
        if proposals and all(candidate.plan.untouched for _, _, candidate in proposals):
            needed_s = float("-inf")  # nothing less accurate than a model that fits untouched may be handed over
        late = self.budget.left_s() < needed_s
        reason: Literal["time", "exhausted", "enough"]
        if not proposals:
            full = self.plan.trials is not None and len(knowledge.proposed) >= self.plan.trials
            reason = "enough" if full else "exhausted"
            detail = (
                f"all {len(knowledge.proposed)} trials asked for"
                if full
                else "every candidate the filters left was tried"
            )
        elif late:
            reason = "time"
            left_s = max(0.0, self.budget.left_s())
            need = "a finalist needs" if finalists == 1 else f"{finalists} finalists need"
            detail = f"{left_s:.0f} s left, of which {need} about {reserved:.0f} s"
        else:
            return None
        share = share_within(self.plan, speed, self.budget, finalists, reserved, ensured=not holds)
        if share < 1.0:
            detail += f"; the recipe is cut to {share:.0%} of its epochs"
        return ProposalsRecord(
            trials=len(trials),
            reason=reason,
            detail=detail,
            finalists=finalists,
            reserve_s=reserved,
            share=share,
            ended_s=self.budget.spent_s(),
        )

    def _first_training_s(self, speed: Speed, candidates: Sequence[Candidate]) -> float:
        """Seconds of one epoch of each candidate, while no trial has been trained."""
        epochs = epochs_of(self.context.recipe)
        count = sum(not candidate.plan.untouched for candidate in candidates)
        return count * self.plan.refine_images / epochs / speed.images_per_s if epochs else 0.0

    def _rivals(self, best: Sequence[TrialRecord]) -> int:
        """Largest number of deployments a finalist will be rechecked on, by the present order of finalists."""
        if not self.plan.recheck:
            return 0
        counts = [
            len(rivals(Deployment.of(trial.candidate), self.deployments.kept, self.run.reference_archs()))
            for trial in best
        ]
        return max(counts, default=0)

    def _batch(
        self, batch: int, proposals: Sequence[tuple[int, int, Candidate]], done: Mapping[int, TrialRecord]
    ) -> list[TrialRecord]:
        try:
            measured, _ = self.bench.measure(
                [candidate for _, _, candidate in proposals],
                self.plan.measure,
                progress=self._measuring(len(done)),
                stop=lambda: stop_if_asked(self.events),
                known=known_of_whole(self.run.target, self.plan, self.deployments),
            )
        except DeviceUnreachable:
            for number, _, candidate in proposals:
                self.events.line(f"lost       trial {number}: {candidate}: not recorded, and measured anew later")
            raise
        trials = []
        for (number, asked, _), result in zip(proposals, measured, strict=True):
            trials.append(self._finish(batch, number, asked, result))
            self.run.write(trials[-1])
            keep_newest(self.run.students, _STUDENTS_BYTES)
            self.events.progress("searching", len(done) + len(trials), self.plan.trials or 0, _note(trials[-1]))
        if not any(trial.accuracy for trial in done.values()):
            self._warn_of_chance(trials)
        return trials

    def _warn_of_chance(self, trials: Sequence[TrialRecord]) -> None:
        task = self.context.task
        trained = [t.accuracy.value for t in trials if t.accuracy and not t.candidate.plan.untouched]
        if task.spec.plain and task.spec.metric.name == "top1":
            caution = at_chance(trained, task.split("validation").labels)
            if caution:
                self.events.line(f"caution    {caution}")

    def _finish(self, batch: int, number: int, asked: int, measured: Measured) -> TrialRecord:
        stop_if_asked(self.events)
        candidate, measurement = measured.candidate, measured.measurement
        features = at_precision(self.features[candidate.arch], candidate.plan.precision)
        artefact = measured.conversion.artefact
        broken = misses(violations(self.run.target, measured.figures, self.deployments.tails), self.deployments.tails)
        trial = TrialRecord(
            number=number,
            candidate=candidate,
            asked=asked,
            batch=batch,
            features=features,
            outcome=measured.outcome,
            detail=measured.detail,
            size_bytes=artefact.size_bytes if artefact else None,
            sha256=artefact.sha256 if artefact else None,
            measurement=measurement,
            figures=measured.figures,
            seconds=measured.seconds,
        )
        if trial.outcome == "measured" and broken:
            spared = self.plan.whole_undecided and candidate.plan.untouched
            if spared and may_hold(self.run.target, measured.figures, self.deployments.tails):
                trial = trial.but(undecided=True)  # a longer measurement decides, which needs no training
            else:
                trial = trial.but(outcome="over-budget", detail=", ".join(broken))
        if trial.outcome == "measured":
            begun = self.budget.spent_s()
            try:
                estimate = self.estimate.estimate(candidate, self.context)
            except Diverged as error:
                self._stop_where_all_diverge(error)
                trial = trial.but(outcome="diverged", detail=error.message)
            else:
                trial = trial.but(accuracy=estimate.accuracy, images_per_s=estimate.images_per_s)
            trial = trial.but(seconds={**trial.seconds, "train": self.budget.spent_s() - begun})
        return trial.but(ended_s=self.budget.spent_s())

    def _stop_where_all_diverge(self, error: Diverged) -> None:
        """Raise Diverged where the first candidates all diverge: it is the recipe or the data. One candidate may."""
        trials = self.run.trials()
        if sum(t.outcome == "diverged" for t in trials) >= _DIVERGED and not any(t.accuracy for t in trials):
            raise error

    def _measuring(self, done: int) -> Progress:
        def progress(what: str, finished: int, total: int) -> None:
            self.events.progress("searching", done, self.plan.trials or 0, f"{what} {finished}/{total}")

        return progress


def _batch_s(trials: Sequence[TrialRecord]) -> float:
    """Mean seconds of a batch, from its trials' own seconds: known right after a resumption too."""
    batches = {trial.batch for trial in trials}
    return sum(sum(trial.seconds.values()) for trial in trials) / len(batches) if batches else 0.0


def _note(trial: TrialRecord) -> str:
    """Progress note of a trial. An estimate's accuracy is not the exported file's, hence the tilde."""
    low = find_figure(trial.figures, P5)
    if low is None:
        return f"{trial.outcome} {trial.detail}"
    score = f"~{100 * trial.accuracy.value:.1f} %" if trial.accuracy else f"{trial.outcome} ({trial.detail})"
    kind = "" if low.kind is EvidenceKind.MEASURED else f" ({low.kind.value})"
    return f"{score} @ {format_us(low.value)} p5{kind}"
