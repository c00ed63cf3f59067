"""Project check before anything is trained or measured: data, space, recipe, and the archs that the budgets leave.

`edgekd check` prints it; every run does it first, so that a mistake costs seconds and not a teacher's training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from edgekd.documents import Document
from edgekd.errors import ConfigurationError, NothingFits, Place, Problem
from edgekd.events import Events
from edgekd.ir.backends import formats_of
from edgekd.records import Shown
from edgekd.store.records import Deployment, FeaturesRecord, FiltersRecord, LeftWhole
from edgekd.tasks._protocol import SplitSizes, sizes_of
from edgekd.units import format_bytes, format_s

if TYPE_CHECKING:
    from edgekd.ir.space import Arch, Space
    from edgekd.project import Project
    from edgekd.teachers._protocol import Teacher

__all__ = ["CheckAnswer", "Checked", "Command", "check_project", "preflight", "require_command", "with_floor"]

Command = Literal["search", "compress", "distill"]

_LONGEST_S = 20.0  # of counting archs, before anything else is known to be in order
_CROWDED = 0.5  # of the time, for one finalist's training: past it hardly any is left for candidates


@dataclass(frozen=True)
class Checked:
    """Results of checking a project. ``features`` of `distill`, which compares no archs, are None."""

    sizes: SplitSizes
    deployments: tuple[Deployment, ...]
    features: FeaturesRecord | None
    filters: FiltersRecord | None
    largest: Arch  # largest arch that may fit: an upper bound of training time


class CheckAnswer(Shown):
    """Answer of `edgekd check`: what a run would try, and the expected time of its trainings here.

    Times are predicted from a few training steps of the largest network that may fit, without its teacher.
    """

    schema_: Literal["edgekd.check/1"] = Field(default="edgekd.check/1", alias="schema")
    project: Path
    command: Command
    sizes: SplitSizes
    teacher: str | None
    deployments: tuple[Deployment, ...]
    filters: FiltersRecord | None
    images_per_s: float
    candidate_s: float | None  # one short training; None where candidates are not trained one by one
    finalist_s: float  # one whole recipe
    budget_s: float | None
    left_whole: tuple[LeftWhole, ...] = ()  # of a model that is pruned
    whole: bool = True  # the file holds all of the project

    def lines(self) -> list[str]:
        """Format as text lines."""
        lines = [f"data       {self.sizes}", f"teacher    {self.teacher or 'none'}"]
        if self.filters is not None:
            shown = "".join(f", {report.name} {report.removed:,} out" for report in self.filters.filters)
            looked = f"{self.filters.considered:,} looked at{shown}"
            lines.append(f"space      {self.filters.space_size:,} archs, {looked}: {self.filters.left:,} may fit")
        lines += [each.line() for each in self.left_whole]
        lines.append(f"deployed   {len(self.deployments)} to measure: {_by_backend(self.deployments)}")
        rate = f"about {self.images_per_s:,.0f} samples/s here"
        each = f"a finalist {format_s(self.finalist_s)}"
        if self.candidate_s is not None:
            each = f"a candidate {format_s(self.candidate_s)}, {each}"
        lines.append(f"training   {rate}: {each}, without the teacher")
        if self.budget_s is not None:
            lines.append(f"time       {format_s(self.budget_s)} to spend")
            if self.finalist_s > _CROWDED * self.budget_s:
                share = self.finalist_s / self.budget_s
                cut = ", or it is trained for fewer epochs" if share > 1 else ""
                lines.append(f"caution    one finalist's training is {share:.0%} of it: raise search.budget{cut}")
        how = f"edgekd {self.command} {self.project}" if self.whole else f"the same arguments to `{self.command}`"
        return [*lines, f"next:      {how}"]


def _by_backend(deployments: Sequence[Deployment]) -> str:
    """Format deployments: ``litert/xnnpack (float32, int8), onnxruntime/cpu (float32)``."""
    precisions: dict[str, list[str]] = {}
    for deployment in deployments:
        precisions.setdefault(str(deployment.backend), []).append(deployment.precision.value)
    return ", ".join(f"{backend} ({', '.join(names)})" for backend, names in precisions.items())


def check_project(written: Path | Document, target: str | None, events: Events) -> CheckAnswer:
    """Check a project without training or measuring anything: seconds; the first time pictures are decoded too.

    The device is not opened, so a missing runtime or meter is reported by the run. Raises ConfigurationError with every
    problem of the project's files, NothingFits where no network of its space can meet the target, and MissingError.
    """
    from edgekd.distill.autotune import probe, training_rate
    from edgekd.distill.trainer import training_device
    from edgekd.project import read_project, ready_data
    from edgekd.search.accuracy.short import ShortTraining
    from edgekd.search.iterative.original import left_whole
    from edgekd.search.recipe import images_of
    from edgekd.students.own import forget_models

    project = read_project(written, target, notice=events.notice)
    forget_models()
    for line in ready_data(project, events):
        events.line(line)
    command: Command = "compress" if project.family.inherits else "search"
    require_command(command, project)
    space = project.family.space(project.task.spec)
    if space.size == 1 and not project.family.inherits:
        command = "distill"
    project = with_floor(command, project, events)
    checked = preflight(command, project, events)
    spec, count = project.task.spec, checked.sizes.train
    module = project.family.build(checked.largest, spec)
    processor = training_device()
    execution = probe(module, spec.input, 32, processor, ("float32",))  # on a busy machine one thread may be the faster
    rate = training_rate(module, spec.input, processor, execution=execution)
    estimate, candidate_s = project.accuracy, None
    if command != "distill" and isinstance(estimate, ShortTraining):
        candidate_s = images_of(estimate.shortened(project.recipe, count), count) / rate
    return CheckAnswer(
        project=project.document.path,
        whole=project.document.whole,
        command=command,
        sizes=checked.sizes,
        teacher=project.teacher.name if project.teacher is not None else None,
        deployments=checked.deployments,
        filters=checked.filters,
        images_per_s=rate,
        candidate_s=candidate_s,
        finalist_s=images_of(project.recipe, count) / rate,
        budget_s=None if command == "distill" else float(project.search.budget),
        left_whole=left_whole(project.family, spec),
    )


def require_command(command: Command, project: Project) -> None:
    """Check that a project is for this command. Raises ConfigurationError."""
    if command == "compress" and not project.family.inherits:
        raise ConfigurationError.one(
            f"`compress` starts from a model of one's own, and the family `{project.family.name}` trains from nothing",
            "use edgekd search, or student: {family: pruned, model: my_model.py:build, ...}",
            Place(str(project.path), field="student.family"),
        )
    if command == "search" and project.search.by == "iterative":
        raise ConfigurationError.one(
            "by: iterative shrinks one trained model, and a search compares candidates",
            "use edgekd compress, or leave it out",
            Place(str(project.path), field="search.by"),
        )


def preflight(command: Command, project: Project, events: Events) -> Checked:
    """Check the project alone, before its teacher is trained or run.

    Raises ConfigurationError, and NothingFits where no analysed network can meet the target.
    """
    from edgekd.project import blamed
    from edgekd.recipes.auto import Auto
    from edgekd.search.differentiable.training import supernet_family, supernet_stage
    from edgekd.search.iterative.rounds import whole_of
    from edgekd.search.plan import analysis_size, make_plan
    from edgekd.search.single import candidates_of
    from edgekd.search.space.analysis import FamilyAnalyser, analyse_space
    from edgekd.search.space.filters import apply_filters, least_of

    with blamed(project, "task"):
        sizes = sizes_of(project.task)
        spec = project.task.spec
    with blamed(project, "student"):
        space = project.family.space(spec)
        smallest = space.at(0)
        project.family.build(smallest, spec)
    with blamed(project, "recipe"):
        _check_recipe(project, smallest)
        if command == "distill":
            candidates = candidates_of(project, None)
            deployments = tuple(Deployment(backend=one.backend, precision=one.plan.precision) for one in candidates)
        else:
            plan = make_plan(project, float(project.search.budget), project.search.seed)
            deployments = plan.deployments
            if plan.differentiable is not None and not any(isinstance(stage, Auto) for stage in project.recipe):
                supernet_stage(project.recipe)
    with blamed(project, "student"):
        _check_placement(project, space)
    with blamed(project, "export"):
        _check_export(project, deployments)
    if command == "distill":
        return Checked(sizes, deployments, None, None, candidates[0].arch)
    with blamed(project, "student"):
        if plan.differentiable is not None:
            supernet_family(project.family).block_costs(spec)
        if command == "compress" and plan.rounds is not None:
            whole_of(project.family, spec)
    latest = time.monotonic() + _LONGEST_S
    features = analyse_space(
        plan.space,
        FamilyAnalyser(project.family, spec),
        analysis_size(plan, float(project.search.budget)),
        project.search.seed,
        events,
        lambda: time.monotonic() > latest,
    )
    filtered = apply_filters(project.target, plan, features)
    if not filtered.left:
        least = "; ".join(
            f"{limit.metric}: the least is {format_bytes(lowest)}, the target allows {limit.written}"
            for limit, lowest in least_of(project.target, plan, features)
            if lowest > limit.bound
        )
        raise NothingFits(
            f"no network of this space can meet target {project.target.name} ({len(features.indices)} looked at)",
            f"{least or 'no single one keeps every limit'}; widen the space downwards, or raise the budget",
        )
    by_index = dict(zip(features.indices, features.features, strict=True))
    largest = max(filtered.left, key=lambda index: by_index[index].macs)
    return Checked(sizes, plan.deployments, features, filtered.record, space.at(largest))


def with_floor(command: Command, project: Project, events: Events) -> Project:
    """Project with the target's limits that this command checks: relative ones need a model to be relative to.

    A compression without an accuracy limit gets a default drop. Raises ConfigurationError.
    """
    from dataclasses import replace

    from edgekd.project import blamed
    from edgekd.students._protocol import Inheriting
    from edgekd.targets.relative import DROP, require_absolute
    from edgekd.targets.target import AccuracyFloor
    from edgekd.tasks._protocol import sizes_of

    target, family = project.target, project.family
    whole = None
    if command != "distill" and isinstance(family, Inheriting):
        events.progress("own model", 0, 1, "which channels belong together")
        with blamed(project, "student"):
            whole = family.original(project.task.spec)
        events.progress("own model", 1, 1, "")
    if whole is None and command == "compress" and isinstance(family, Inheriting):
        none = "is no candidate, and sets no floor" if target.accuracy is None else "is no candidate"
        events.line(f"own model  {none}: the student's space leaves it out. Put 1.0 among its ratios")
    if whole is None:
        require_absolute(target, Place(str(project.path), field="target"))
    elif command == "compress" and target.accuracy is None:
        events.line(f"accuracy   at most {DROP} below the model as it came: {target.name} names no floor")
        if sizes_of(project.task).validated_on == "train":
            events.line(
                "           validation is carved out of training samples, where a model that has learnt them scores "
                "too high: give x_validation, or write accuracy: {drop: ...} into the target"
            )
        target = target.but(accuracy=AccuracyFloor(drop=DROP))
    return replace(project, target=target)


def _check_export(project: Project, deployments: Sequence[Deployment]) -> None:
    """Check that some format at some precision is possible for this task. Raises ConfigurationError."""
    from edgekd.export.io_wrapper import unwritable

    spec = project.task.spec
    found = [
        unwritable(spec, deployment.precision, project.export, formats_of(deployment.backend)[0])
        for deployment in deployments
    ]
    everywhere = [problem for problem in found[0] if all(problem in others for others in found[1:])]
    if everywhere:
        raise ConfigurationError(everywhere)


def _check_placement(project: Project, space: Space) -> None:
    """Check that float operators named in a recipe exist, and that a fully integer target has none left in float.

    Looks at the smallest and the largest arch. Raises ConfigurationError.
    """
    from edgekd.compress.quantization.placement import float_operators, unmatched
    from edgekd.search.recipe import kept_float
    from edgekd.students.graph import trace
    from edgekd.students.student import new_student

    kept, spec = kept_float(project.recipe), project.task.spec
    if not kept and not project.target.fully_integer:
        return
    ends = [space.at(0), space.at(space.size - 1)][: space.size]
    traced = [trace(new_student(project.family, arch, spec, 0), decomposed=False) for arch in ends]
    problems = unmatched(traced, kept)
    if project.target.fully_integer:
        floats = dict(float_operators(traced[0], kept)) | dict(float_operators(traced[-1], kept))
        problems += [
            Problem(
                f"target {project.target.name} is fully integer, and `{key}` {reason}",
                "replace the operator, or take fully_integer out of the target",
            )
            for key, reason in floats.items()
        ]
    if problems:
        raise ConfigurationError(problems[:_NAMED_OPERATORS])


_NAMED_OPERATORS = 4


def _check_recipe(project: Project, arch: Arch) -> None:
    """Check that the recipe can run on this student. Raises ConfigurationError with every reason.

    A teacher still to be trained is checked untrained; where that can't be made, its losses are checked once it is.
    """
    from edgekd.distill.generative.data_free import DataFree
    from edgekd.project import blamed, cache_folder
    from edgekd.recipes.runner import check_recipe
    from edgekd.stages import Prepares, StageContext
    from edgekd.students.student import new_student
    from edgekd.teachers._protocol import PreparableTeacher, Sketched
    from edgekd.teachers.binding import bind
    from edgekd.teachers.nested import untrained_teacher

    spec, asked = project.task.spec, cast(object, project.teacher)
    teacher: Teacher | None = None
    if isinstance(asked, PreparableTeacher) and not isinstance(asked, Sketched):
        return
    if project.teacher is not None:
        with blamed(project, "teacher"):
            teacher = bind(untrained_teacher(project.teacher, spec), spec)
    student = new_student(project.family, arch, spec, project.search.seed)
    context = StageContext(
        task=project.task,
        teacher=teacher,
        device=None,
        backend=None,
        folder=cache_folder(),
        cache=cache_folder(),
        seed=project.search.seed,
        progress=lambda _: None,
        stop=lambda: False,
    )
    problems = check_recipe(
        [stage for stage in project.recipe if isinstance(stage, (Prepares, DataFree))], student, context
    )
    if problems:
        raise ConfigurationError(problems)
