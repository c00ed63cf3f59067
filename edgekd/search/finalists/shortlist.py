"""Shortlist: the best trials measured once more before long training, untrained, as the verdict will measure them.

A trial is measured briefly and compared by its value; the verdict compares the end of an interval, under the target's
own load. Where refining takes much longer than measuring, a candidate that would fail is rejected before training.
Reads trials/*.json and the target; writes shortlist.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import Outcome
from edgekd.events import Events, stop_if_asked
from edgekd.measure.sentinel import judge_measured
from edgekd.search.budget import SHORTLISTED, Budget
from edgekd.search.finalists.order import as_it_came_first, order_of_finalists
from edgekd.search.trials.measuring import Bench
from edgekd.store.records import DeploymentsRecord, PlanRecord, Shortlisted, ShortlistRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer

__all__ = ["Shortlist", "answer_of", "by_shortlist", "standing"]

_MOST = 3 * SHORTLISTED


def answer_of(target: Target, seen: Shortlisted) -> Answer:
    """Worst answer among the hard limits that can be checked on a file with untrained weights."""
    if seen.measurement is None or seen.measurement.outcome is not Outcome.OK:
        return Answer.FAILS
    return judge_measured(target, seen.figures, seen.measurement).untrained.answer


def by_shortlist(
    target: Target, order: Sequence[TrialRecord], shortlist: ShortlistRecord | None
) -> tuple[TrialRecord, ...]:
    """Order of finalists without those that failed; those with an undecided verdict come last."""
    if shortlist is None:
        return tuple(order)
    answers = {seen.trial: answer_of(target, seen) for seen in shortlist.seen}
    left = [trial for trial in order if answers.get(trial.number) is not Answer.FAILS]
    return tuple(sorted(left, key=lambda trial: answers.get(trial.number, Answer.HOLDS) is not Answer.HOLDS))


def standing(
    target: Target, deployments: DeploymentsRecord, trials: Sequence[TrialRecord], shortlist: ShortlistRecord | None
) -> tuple[TrialRecord, ...]:
    """Trials that may become finalists, in order; with ``shortlist`` None, the trials a shortlist is measured from."""
    return as_it_came_first(
        by_shortlist(target, as_it_came_first(order_of_finalists(target, deployments, trials)), shortlist)
    )


@dataclass(frozen=True)
class Shortlist:
    """Measures trials until ``wanted`` of them hold."""

    run: Run
    plan: PlanRecord
    bench: Bench
    events: Events
    budget: Budget

    def __call__(self, order: Sequence[TrialRecord], wanted: int) -> ShortlistRecord:
        """Measure batch after batch, each written when it is done. Raises Interrupted."""
        target = self.run.target
        record = self.run.shortlist() or ShortlistRecord(seen=())
        while not record.complete:
            known = {seen.trial for seen in record.seen}
            holds = sum(answer_of(target, seen) is Answer.HOLDS for seen in record.seen)
            waiting = [trial for trial in order[:_MOST] if trial.number not in known][:SHORTLISTED]
            if holds >= wanted or not waiting:
                record = record.but(complete=True)
            else:
                record = record.but(seen=(*record.seen, *self._measure(waiting)), ended_s=self.budget.spent_s())
            self.run.write(record)
        answers = [answer_of(target, seen) for seen in record.seen]
        counts = ", ".join(f"{answers.count(answer)} {_WORDS[answer]}" for answer in _WORDS if answer in answers)
        self.events.line(f"shortlist  {len(answers)} measured untrained as the verdict will: {counts}")
        return record

    def _measure(self, trials: Sequence[TrialRecord]) -> list[Shortlisted]:
        measured, _ = self.bench.measure(
            [trial.candidate for trial in trials],
            self.plan.certify.but(profile=False),
            progress=lambda what, done, total: self.events.progress("shortlist", done, total, what),
            stop=lambda: stop_if_asked(self.events),
        )
        return [
            Shortlisted(trial=trial.number, measurement=result.measurement, figures=result.figures)
            for trial, result in zip(trials, measured, strict=True)
        ]


_WORDS = {
    Answer.HOLDS: "hold",
    Answer.UNSTABLE: "undecided",
    Answer.UNKNOWN: "unknown",
    Answer.FAILS: "fail",
}
