"""Plan of a run, derived once from the project and the target: plan.json."""

from __future__ import annotations

from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.errors import ConfigurationError
from edgekd.project import Project
from edgekd.search.differentiable.teacher_tuning import recipes_tried, settings_of, temperature_of
from edgekd.search.recipe import deployments_of, images_of, with_precision
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.store.records import PlanRecord, RoundsPlan
from edgekd.students._protocol import Inheriting
from edgekd.targets.target import Target
from edgekd.tasks._protocol import sizes_of

__all__ = ["analysis_size", "certify_plan", "make_plan", "trial_plan"]

_CORRECTED = 2  # trials of a differentiable search in a batch: their measurements correct the next predictions
_TIMES = (
    *("latency.p5", "latency.p50", "latency.p95", "latency.p99", "latency.mean", "latency.runtime"),
    "throughput",
)
ENERGY = ("energy.per_inference", "power.average")


def make_plan(project: Project, budget_s: float | None, seed: int) -> PlanRecord:
    """Derive the plan. Raises ConfigurationError where recipe and target leave no precision in common."""
    target, asked = project.target, project.search
    differentiable = asked.by if isinstance(asked.by, DifferentiableOptions) else None
    deployments = deployments_of(target, project.recipe)
    if not deployments:
        raise ConfigurationError.one(
            f"target {target.name} and the recipe leave no precision in common",
            "take the quantize stage out of the recipe, or set its precision to what the target allows",
        )
    training, sizes = with_precision(project.recipe, deployments[0].precision), sizes_of(project.task)
    return PlanRecord(
        axes=project.family.space(project.task.spec).axes,
        deployments=deployments,
        reference_archs=asked.reference_archs or _reference_archs(budget_s),
        sampler=asked.sampler if differentiable is None else "differentiable",
        batch=asked.batch if differentiable is None else min(asked.batch, _CORRECTED),
        trials=asked.trials if differentiable is None else asked.trials or differentiable.tries,
        finalists=asked.finalists,
        measure=trial_plan(target, seed),
        certify=certify_plan(target, seed),
        by_files_seen=True,
        recheck=True,
        largest_first=differentiable is None,
        original=project.family.original(project.task.spec) if isinstance(project.family, Inheriting) else None,
        rounds=RoundsPlan(**dict(asked.iterative)) if asked.by == "iterative" else None,
        differentiable=differentiable,
        predict=asked.predict and differentiable is None and asked.by != "iterative",
        time_is_bounded=any(limit.hard and limit.metric in _TIMES for limit in target.limits)
        or any(metric in _TIMES for metric, _ in target.relative),
        refine_images=round((1 + _tried(project, differentiable)) * images_of(training, sizes.train)),
        validation_images=sizes.validation,
        test_images=sizes.test or 0,
        samples_a_call=project.export.batch if isinstance(project.export.batch, int) else 1,
        skips_missed=True,
        whole_first=True,
        whole_undecided=True,
    )


def trial_plan(target: Target, seed: int) -> MeasurePlan:
    """Measurement plan of trials: short, back to back; the 5th percentile needs few calls and is the same under any
    load.
    """
    return MeasurePlan(
        processes=3,
        rounds=5,
        round_ms=12.0,
        warmup_ms=40.0,
        threads=target.threads,
        energy=any(limit.hard and limit.metric in ENERGY for limit in target.limits),
        seed=seed,
    )


def certify_plan(target: Target, seed: int) -> MeasurePlan:
    """Measurement plan of certificates: long enough for a true p95, under the target's load, operators profiled."""
    rate = target.load.rate
    load = Load(pattern=target.load.pattern, rate_hz=None if rate is None else float(rate))
    energy = any(limit.metric in ENERGY for limit in target.limits)
    return MeasurePlan(
        processes=5, rounds=10, threads=target.threads, load=load, profile=True, energy=energy, seed=seed + 1
    )


def analysis_size(plan: PlanRecord, budget_s: float | None) -> int:
    """Number of archs to analyse: about a twentieth of the budget, at some 25 ms each.

    At most 1,024 where a user's own whole model is among them: hardly a compression tries a hundred of its cut-outs. A
    differentiable search needs a few hundred, for reference archs and table: archs near its result are analysed later.
    """
    if plan.differentiable is not None:
        return 256
    most = 4096 if plan.original is None else 1024
    return most if budget_s is None else int(min(most, max(128, 2 * budget_s)))


def _tried(project: Project, differentiable: DifferentiableOptions | None) -> float:
    """Teacher tuning of one finalist in whole recipes, beside its own training."""
    own = temperature_of(project.recipe)
    if differentiable is None or own is None:
        return 0.0
    assisted = differentiable.assistant is not None and project.teacher is not None
    return recipes_tried(len(settings_of(own, differentiable.temperatures, assisted)))


def _reference_archs(budget_s: float | None) -> int:
    if budget_s is None or budget_s >= 3600:
        return 6
    return 5 if budget_s >= 600 else 4
