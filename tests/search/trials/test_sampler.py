"""Samplers propose what is left, never twice, the same for the same knowledge, and learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgekd.ir.numerics import Precision
from edgekd.ir.space import Axis, Condition
from edgekd.search._protocol import Knowledge
from edgekd.search.replay import replay
from edgekd.search.trials.sampler import RandomSampler, TpeSampler, seed_of
from edgekd.store.records import Deployment, PlanRecord
from edgekd.store.run import Run

SAMPLERS = [RandomSampler(), TpeSampler(startup=4)]


def allowed_on(plan: PlanRecord, by_precision: dict[Precision, tuple[int, ...]]) -> dict[Deployment, tuple[int, ...]]:
    return {deployment: by_precision[deployment.precision] for deployment in plan.deployments}


@pytest.fixture
def knowledge(make_lab: Callable[..., Any]) -> Knowledge:
    """What an unfinished search knows after 12 trials."""
    lab = make_lab(trials=12)
    lab.search()
    run = Run.open(lab.folder)
    space = lab.plan.space
    return Knowledge(
        family="resnet",
        plan=lab.plan,
        allowed=allowed_on(lab.plan, {Precision.FLOAT32: (1, 5, 9), Precision.INT8: tuple(range(0, space.size, 2))}),
        deployments=lab.plan.deployments,
        trials=run.trials(),
    )


def pairs(knowledge: Knowledge) -> set[tuple[Any, Any, Any]]:
    space = knowledge.plan.space
    return {
        (space.at(i), deployment.precision, deployment.backend)
        for deployment in knowledge.deployments
        for i in knowledge.allowed.get(deployment, ())
    }


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_everything_left_is_proposed_once_and_then_nothing(sampler: Any, knowledge: Knowledge) -> None:
    allowed = allowed_on(knowledge.plan, {Precision.FLOAT32: (1, 5, 9), Precision.INT8: (2, 4, 6)})
    knowledge = replace(knowledge, allowed=allowed, trials=knowledge.trials[:5])
    expected = pairs(knowledge) - {
        (t.candidate.arch, t.candidate.plan.precision, t.candidate.backend) for t in knowledge.trials
    }
    found = []
    while (candidate := sampler.propose(knowledge, seed_of(0, len(found)))) is not None:
        found.append((candidate.arch, candidate.plan.precision, candidate.backend))
        knowledge = replace(knowledge, pending=(*knowledge.pending, candidate))
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_the_same_knowledge_and_seed_give_the_same_proposal(sampler: Any, knowledge: Knowledge) -> None:
    assert sampler.propose(knowledge, 5) == sampler.propose(knowledge, 5)
    assert len({sampler.propose(knowledge, seed) for seed in range(8)}) > 1


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_global_random_state_has_no_part_in_it(sampler: Any, knowledge: Knowledge) -> None:
    import random

    import numpy as np

    before = sampler.propose(knowledge, 5)
    random.seed(1)
    np.random.seed(1)  # the global state is what is tested
    state = np.random.get_state()[1]
    assert sampler.propose(knowledge, 5) == before
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


def test_seeds_differ_and_last(knowledge: Knowledge) -> None:
    assert len({seed_of(s, n) for s in range(30) for n in range(30)}) == 900
    assert seed_of(7, 3) == 287_060_127  # recorded runs depend on it


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [False, True])
def test_tpe_finds_better_candidates_than_chance(make_lab: Callable[..., Any], bounded: bool) -> None:
    def best(sampler: Any, seed: int) -> float:
        budgets = {"latency": {"p95": "90 us"}, "size": {"file": "20 KiB"}}
        lab = make_lab(trials=30, seed=seed, target={"budgets": budgets}, time_is_bounded=bounded)
        lab.sampler = sampler
        lab.search()
        scores = sorted((t.accuracy.value for t in Run.open(lab.folder).trials() if t.accuracy), reverse=True)
        return sum(scores[:5]) / 5

    gains = [best(TpeSampler(startup=8), seed) - best(RandomSampler(), seed) for seed in range(3)]
    assert sum(gains) > 0.0
    assert sum(gain >= 0.0 for gain in gains) >= 2


@pytest.mark.slow
def test_each_deployment_begins_with_the_largest_arch(knowledge: Knowledge) -> None:
    knowledge = replace(knowledge, plan=knowledge.plan.but(largest_first=True), trials=())
    found = []
    for number in range(len(knowledge.deployments) + 3):
        candidate = TpeSampler().propose(knowledge, seed_of(0, number))
        assert candidate is not None
        found.append(candidate)
        knowledge = replace(knowledge, pending=tuple(found))
    assert [Deployment.of(candidate) for candidate in found[: len(knowledge.deployments)]] == list(
        knowledge.deployments
    )
    largest = [knowledge.plan.space.at(max(knowledge.allowed[deployment])) for deployment in knowledge.deployments]
    assert [candidate.arch for candidate in found[: len(knowledge.deployments)]] == largest


MIXED = (
    Axis(name="depth", choices=(1, 2, 3)),
    Axis(name="kind", choices=("thin", "thick")),
    Axis(name="wide", choices=(1, 2, 3, 4)),
    Axis(name="width", choices=(8, 16, 24, 32)),
    Axis(name="extra", choices=(1, 2, 3), when=(Condition(axis="kind", choices=("thick",)),)),
)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_categories_and_conditional_axes_are_searched_and_replayed(sampler: Any, make_lab: Callable[..., Any]) -> None:
    lab = make_lab(axes=MIXED, trials=16, sampler=sampler.name)
    lab.sampler = type(sampler)()  # a replay makes it with its defaults
    lab.search()
    run = Run.open(lab.folder)
    archs = [trial.candidate.arch for trial in run.trials()]
    assert len(archs) == 16
    assert all(arch in lab.plan.space and ("extra" in arch) == (arch["kind"] == "thick") for arch in archs)
    assert {arch["kind"] for arch in archs} == {"thin", "thick"}
    assert replay(run).same
