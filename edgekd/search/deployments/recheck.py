"""Recheck of the kept deployments on each finalist's own arch: the reference archs' order need not hold there.

Reads reference-archs/*.json, deployments.json and the finalists' trials; writes rechecks/*.json. A finalist moves to
another deployment where that one is at least as faithful, faster beyond the noise, and no larger where size is limited.
Only deployments that came near on some reference arch are measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.events import Events, stop_if_asked
from edgekd.ir.plan import Candidate
from edgekd.search.budget import Budget
from edgekd.search.deployments.ranking import better_deployment, rivals
from edgekd.search.trials.measuring import Bench, observation_of
from edgekd.store.records import Deployment, DeploymentsRecord, PlanRecord, RecheckRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target

__all__ = ["Recheck", "rechecked"]


def rechecked(
    target: Target, deployments: DeploymentsRecord, candidate: Candidate, record: RecheckRecord | None
) -> Candidate:
    """Return the candidate at the deployment that its recheck favours."""
    if record is None:
        return candidate
    deployment = better_deployment(
        target, Deployment.of(candidate), deployments.kept, record.observations, record.noise
    )
    return candidate.but(backend=deployment.backend, plan=candidate.plan.but(precision=deployment.precision))


@dataclass(frozen=True)
class Recheck:
    """Measures the finalists' archs that have no recheck record yet."""

    run: Run
    plan: PlanRecord
    deployments: DeploymentsRecord
    bench: Bench
    events: Events
    budget: Budget

    def __call__(self, order: Sequence[TrialRecord]) -> None:
        """Measure all finalists that have rivals in one batch. Raises Interrupted."""
        known = {record.trial for record in self.run.rechecks()}
        asked = {t.number: self._asked(t.candidate) for t in order if t.number not in known}
        asked = {number: candidates for number, candidates in asked.items() if len(candidates) > 1}
        if not asked:
            return
        measured, noise = self.bench.measure(
            [candidate for candidates in asked.values() for candidate in candidates],
            self.plan.measure,
            pair=True,
            progress=lambda what, done, total: self.events.progress("deployments", done, total, what),
            stop=lambda: stop_if_asked(self.events),
        )
        observations = [observation_of(Deployment.of(result.candidate), result) for result in measured]
        for number, candidates in asked.items():
            mine, observations = observations[: len(candidates)], observations[len(candidates) :]
            self.run.write(
                RecheckRecord(trial=number, observations=tuple(mine), noise=noise, ended_s=self.budget.spent_s())
            )

    def _asked(self, candidate: Candidate) -> list[Candidate]:
        """Return the candidate and its rivals."""
        mine = Deployment.of(candidate)
        others = rivals(mine, self.deployments.kept, self.run.reference_archs())
        return [
            candidate.but(backend=a.backend, plan=candidate.plan.but(precision=a.precision)) for a in (mine, *others)
        ]
