"""Samplers: propose the next candidate from the knowledge so far.

Reads plan.json, the filters' result, the kept deployments and the trials of earlier batches; the loop writes the
proposal into the trial's file. A sampler is made anew for each ask with a seed from (seed, number), and the study it
asks is built anew from the recorded trials: a re-created seeded sampler would repeat its earlier proposals, and a
stored study would be a second truth.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import NonNegativeInt

from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch, Choice, Space
from edgekd.records import Record
from edgekd.search._protocol import Knowledge
from edgekd.search.differentiable.nearby import next_of
from edgekd.search.space.feasible import p5_us
from edgekd.store.records import Deployment, TrialRecord

__all__ = ["DifferentiableSampler", "RandomSampler", "TpeSampler", "seed_of"]

_FAILED = 1e3  # the violation of a trial without figures: worse than any that was measured


def seed_of(seed: int, number: int) -> int:
    """The seed of ask ``number``: 32 bits that depend on (seed, number) alone, on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


class RandomSampler(Record):
    """Uniform random sampling among untried candidates. The baseline for every other sampler."""

    name: ClassVar[str] = "random"

    def propose(self, knowledge: Knowledge, seed: int) -> Candidate | None:
        """Return an untried candidate, each equally likely."""
        untried = list(_untried(knowledge))
        if not untried:
            return None
        index, deployment = untried[int(np.random.default_rng(seed).integers(len(untried)))]
        return deployment.candidate(knowledge.family, knowledge.plan.space.at(index))


class TpeSampler(Record):
    """Tree-structured Parzen estimator, multi-objective and constrained (Optuna; Watanabe & Hutter 2023).

    Maximises accuracy under the target's limits; where none of them bounds time, it minimises the 5th percentile of
    latency as well. The first trial is the largest arch that may fit, on each deployment: where that holds the target,
    nothing has to be given up. Then ``startup`` trials are random.
    """

    name: ClassVar[str] = "tpe"

    startup: NonNegativeInt = 10

    def propose(self, knowledge: Knowledge, seed: int) -> Candidate | None:
        """Return the untried candidate nearest to the estimator's proposal."""
        untried = list(_untried(knowledge))
        if not untried:
            return None
        largest = _largest(knowledge) if knowledge.plan.largest_first else None
        if largest is not None:
            return largest
        if len(knowledge.proposed) + len(knowledge.pending) < self.startup:
            return RandomSampler().propose(knowledge, seed)
        wanted = _ask(knowledge, seed, self.startup)
        space, deployments = knowledge.plan.space, list(knowledge.deployments)
        place = np.array(space.encode(wanted.arch))
        distances = {
            index: float(np.abs(np.array(space.encode(space.at(index))) - place).sum())
            for index in {index for index, _ in untried}
        }
        # another deployment is as far as one whole axis, so that the deployment asked for wins unless its neighbourhood
        # is used up
        best = min(
            untried, key=lambda pair: (distances[pair[0]] + (deployments.index(pair[1]) != wanted.deployment), pair[0])
        )
        return best[1].candidate(knowledge.family, space.at(best[0]))


class DifferentiableSampler(Record):
    """Archs nearest to a trained choice (`edgekd.search.differentiable`), for ``by: differentiable`` alone.

    The most probable ones whose latency, as predicted and corrected by the trials so far, keeps the budget.
    """

    name: ClassVar[str] = "differentiable"

    def propose(self, knowledge: Knowledge, seed: int) -> Candidate | None:
        """Return the next arch of the ranking; None where there is none, or nothing was trained."""
        del seed
        index = next_of(knowledge)
        if index is None or knowledge.ranking is None:
            return None
        return knowledge.ranking.deployment.candidate(knowledge.family, knowledge.plan.space.at(index))


class _Wanted(NamedTuple):
    """Proposal of the estimator."""

    arch: Arch
    deployment: int  # its place among the kept ones


def _ask(knowledge: Knowledge, seed: int, startup: int) -> _Wanted:
    """Ask Optuna axis by axis, each that exists given the choices before: a number by its rank, a category as it is."""
    import optuna  # half a second: not for a command that never searches

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, deployments = knowledge.plan.space, list(knowledge.deployments)
    distributions: dict[str, Any] = {
        axis.name: optuna.distributions.CategoricalDistribution(axis.choices)
        if axis.categorical
        else optuna.distributions.IntDistribution(0, len(axis.choices) - 1)
        for axis in space.axes
    }
    distributions["deployment"] = optuna.distributions.CategoricalDistribution(list(range(len(deployments))))
    conditional = any(axis.when for axis in space.axes)
    bounded = knowledge.plan.time_is_bounded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=conditional,  # axes that exist together are estimated jointly
            n_startup_trials=startup,
            constant_liar=True,
        )
    directions = ["maximize"] if bounded else ["maximize", "minimize"]
    study = optuna.create_study(directions=directions, sampler=sampler)
    slowest = max((us for trial in knowledge.proposed if (us := p5_us(trial.figures)) is not None), default=1.0)

    def frozen(candidate: Candidate, **state: Any) -> Any:
        params = {**_params(space, candidate.arch), "deployment": deployments.index(Deployment.of(candidate))}
        tables_for = {name: distributions[name] for name in params}
        return optuna.trial.create_trial(params=params, distributions=tables_for, **state)

    for trial in knowledge.proposed:
        if Deployment.of(trial.candidate) in deployments:
            score, us = trial.accuracy.value if trial.accuracy else 0.0, p5_us(trial.figures) or slowest
            values = (score,) if bounded else (score, us)
            study.add_trial(frozen(trial.candidate, values=values, constraints=_constraints(knowledge, trial)))
    for candidate in knowledge.pending:
        study.add_trial(frozen(candidate, state=optuna.trial.TrialState.RUNNING))
    trial, picks = study.ask(), dict[str, Choice]()
    for axis in space.axes:
        if axis.exists(picks):
            if axis.categorical:
                picks[axis.name] = trial.suggest_categorical(axis.name, axis.choices)
            else:
                picks[axis.name] = axis.choices[trial.suggest_int(axis.name, 0, len(axis.choices) - 1)]
    return _Wanted(Arch.of(picks), trial.suggest_categorical("deployment", list(range(len(deployments)))))


def _constraints(knowledge: Knowledge, trial: TrialRecord) -> dict[str, float]:
    if trial.outcome not in ("measured", "over-budget"):
        return {"outcome": _FAILED}
    found = {name: min(value, _FAILED) for name, value in knowledge.violations.get(trial.number, {}).items()}
    return {"outcome": 0.0, **{name: value for name, value in found.items() if math.isfinite(value)}}


def _largest(knowledge: Knowledge) -> Candidate | None:
    """Return the largest arch that may fit on a deployment that has had no trial: first where most of it fits."""
    tried = {
        Deployment.of(candidate)
        for candidate in (*(trial.candidate for trial in knowledge.proposed), *knowledge.pending)
    }
    for deployment in sorted(knowledge.deployments, key=lambda each: -knowledge.affordable.get(each, 1.0)):
        index = _largest_on(knowledge, deployment) if deployment not in tried else None
        if index is not None:
            return deployment.candidate(knowledge.family, knowledge.plan.space.at(index))
    return None


def _largest_on(knowledge: Knowledge, deployment: Deployment) -> int | None:
    """Return the last allowed index; where the whole model clearly misses, the one of most multiply-adds that may fit.

    Latency grows with multiply-adds in proportion, at most: with more of them than the affordable share it would miss.
    """
    allowed, share = knowledge.allowed.get(deployment, ()), knowledge.affordable.get(deployment)
    whole = knowledge.macs.get(knowledge.plan.space.size - 1)
    if share is None or whole is None:
        return max(allowed, default=None)
    most = share * whole
    fitting = [index for index in allowed if knowledge.macs.get(index, math.inf) <= most]
    return max(fitting, key=lambda index: (knowledge.macs[index], index), default=None)


def _untried(knowledge: Knowledge) -> Iterator[tuple[int, Deployment]]:
    space = knowledge.plan.space
    tried: dict[tuple[str, str], set[int]] = {}
    for candidate in (*(trial.candidate for trial in knowledge.proposed), *knowledge.pending):
        where = (str(candidate.backend), candidate.plan.precision.value)
        tried.setdefault(where, set()).add(space.index(candidate.arch))
    for deployment in knowledge.deployments:
        done = tried.get((str(deployment.backend), deployment.precision.value), set())
        yield from ((index, deployment) for index in knowledge.allowed.get(deployment, ()) if index not in done)


def _params(space: Space, arch: Arch) -> dict[str, int | str]:
    existing = [(axis, arch[axis.name]) for axis in space.axes if axis.name in arch]
    return {axis.name: choice if isinstance(choice, str) else axis.choices.index(choice) for axis, choice in existing}
