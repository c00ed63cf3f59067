"""Distillation, the recipe stage `distill`: trains a student on the task, with a teacher or (``loss: ce``) without one.

The teacher runs once on each of ``views`` augmented views of the training split, and its outputs are cached; epoch e
uses view e modulo that number. Each view costs one pass of the teacher; by multiply-adds, a pass of a ResNet-56 is
worth about three epochs of a ResNet-8. So the default is four: a small student gets four times the samples, and a
longer training costs no more passes. Without a teacher a view costs nothing, and every epoch has its own; likewise with
``cache: false``, where the teacher runs on every batch, which takes several times longer.

A student with inherited trained weights is recovered, not trained from scratch: by default with a low rate and no
warm-up, and the best of its start and its epochs by validation is kept. Not if all losses are on features: validation
scores outputs, which such a training leaves to a later one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from edgekd.distill.augment.chain import Augment
from edgekd.distill.heads._protocol import BalanceName
from edgekd.distill.losses.combined import Combined
from edgekd.distill.schedule import Schedule
from edgekd.errors import ConfigurationError, Problem, nearest_name
from edgekd.events import StageProgress
from edgekd.ir.encoding import Annotations
from edgekd.records import Digest, Record, digest_json
from edgekd.stages import FLOAT_WEIGHTS, StageContext
from edgekd.students._protocol import Student
from edgekd.teachers._protocol import OpenTeacher
from edgekd.units import format_bytes

if TYPE_CHECKING:
    from torch import nn

    from edgekd.distill.autotune import Precision
    from edgekd.distill.heads.objective import HeadsObjective
    from edgekd.distill.layer_matching import Networks
    from edgekd.distill.loop import Plan, TrainingData
    from edgekd.distill.losses._protocol import Site
    from edgekd.distill.objective import Objective
    from edgekd.distill.teacher_source import TeacherSource
    from edgekd.students.points import Layout, Point
    from edgekd.tasks._protocol import TaskSpec
    from edgekd.teachers._protocol import View

__all__ = ["Distill"]

_VERSION = 7  # raised when the same options train to another result
_DEFAULT_VIEWS = 4
_BATCHES, _STEPS_AN_EPOCH = (16, 32, 64, 128), 20
# rates are of batches of 128, and in proportion for others (Goyal et al. 2017, arXiv 1706.02677)
_RATE, _WARMUP, _WARMUP_STEPS = 0.1, 1.0, 20  # for random weights; of few images an epoch is too few steps
_RECOVERY_RATE = 0.01  # for trained ones: at 0.1 one epoch took a network from 84 % to 20 %
_OTHER_VIEWS = 1_000_003  # added to a seed: views that no student of the same recipe is trained on
_UNUSED: dict[str, Any] = {"balance": "none", "schedule": "cosine", "clip": None}
_ASKED_FILE = "asked.json"  # how the teacher computes where it has no cache
_CONSISTENT = "leave consistent out, or set cache: true"
_DATA_FREE = "give it some, or use the stage data-free, which learns from the teacher alone"


class Distill(Record):
    """Options of `distill`. The defaults suit small convolutional networks and short trainings."""

    name: ClassVar[str] = "distill"
    requires: ClassVar[frozenset[str]] = FLOAT_WEIGHTS
    per_backend: ClassVar[bool] = False  # its result does not depend on the backend

    loss: Combined = Field(default_factory=lambda: Combined.model_validate({"kd": {}}))
    epochs: PositiveInt = 40
    batch_size: Annotated[int, Field(ge=2)] | None = None  # 128; fewer for less than 2,560 images: `batch_size_for`
    # 0.1 for batches of 128, 0.01 where the student inherits weights; auto: by a range test
    learning_rate: PositiveFloat | Literal["auto"] | None = None
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    warmup_epochs: NonNegativeFloat | None = None  # 1, or 20 steps; 0 where the student inherits trained weights
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None  # the same as loss.ce.label_smoothing
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999  # decay of the running average of weights; 0: none
    views: PositiveInt | None = None  # at most `epochs` are used
    cache: bool = True  # cache the teacher's outputs; false: run it on every batch
    consistent: bool = True  # the teacher gets exactly the student's pixels; false: another view
    augment: Augment = Augment()
    freeze: tuple[str, ...] = ()  # parts of the student, by path, that stay as they are: `stem`, `blocks.0`
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    schedule: Schedule = "cosine"  # of the learning rate; see distill/schedule.py
    clip: PositiveFloat | None = None  # a longer gradient is cut to this length
    balance: BalanceName = "none"  # between several heads; see distill/heads/balance.py

    @field_validator("label_smoothing")
    @classmethod
    def _one_smoothing(cls, value: float | None, info: ValidationInfo) -> float | None:
        labels = [loss for name, loss in _parts(info.data) if name == "ce"]
        written = sorted({getattr(loss, "label_smoothing", 0.0) for loss in labels})
        if value is not None and not written and "loss" in info.data:
            raise PydanticCustomError("loss", "there is no label to smooth: the loss has no `ce`")
        if value is not None and any("label_smoothing" in loss.schedule for loss in labels):
            raise PydanticCustomError("loss", "loss.ce.label_smoothing changes: write one of the two")
        if value is not None and (others := [other for other in written if other not in (0.0, value)]):
            raise PydanticCustomError(
                "loss", "loss.ce.label_smoothing is {written}: write one of the two", {"written": f"{others[0]:g}"}
            )
        return value

    @field_validator("schedule")
    @classmethod
    def _one_rise(cls, value: Schedule, info: ValidationInfo) -> Schedule:
        if value == "one-cycle" and info.data.get("warmup_epochs"):
            raise PydanticCustomError("schedule", "one-cycle rises by itself: leave warmup_epochs out")
        return value

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit options added later if they have their defaults, so that such a stage keeps its key."""
        return {name: value for name, value in handler(self).items() if (name, value) not in _UNUSED.items()}

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return every reason the stage can't run: teacher, classes, task, annotations, augmentation."""
        problems = self._of_heads(student, context)
        spec, teacher = context.task.spec, context.teacher
        if not len(context.task.split("train")):
            problems.append(Problem(f"distill: task `{spec.name}` has no training samples", _DATA_FREE))
        if self.loss.needs_teacher and teacher is None:
            message = "distill: the loss needs a teacher, and the project has none"
            problems.append(Problem(message, "add a teacher, or train on labels alone with loss: {ce: {}}"))
        plain = self.loss.needs_teacher and teacher is not None and spec.plain
        if plain and teacher is not None and teacher.classes != spec.head.classes:
            message = (
                f"distill: teacher `{teacher.name}` has {teacher.classes} classes, "
                f"task `{spec.name}` has {spec.head.classes}"
            )
            problems.append(Problem(message, "use a teacher trained on the same classes, in the same order"))
        if student.task.heads != spec.heads and not spec.plain:
            problems.append(
                Problem("distill: the student was built for other heads", "build the student for this task")
            )
        elif student.task.head.classes != spec.head.classes or student.task.input.shape != spec.input.shape:
            message = (
                f"distill: the student was built for {student.task.head.classes} classes and inputs "
                f"{student.task.input.shape}, task `{spec.name}` has {spec.head.classes} and {spec.input.shape}"
            )
            problems.append(Problem(message, "build the student for this task"))
        if not self.cache and not self.consistent:
            problems.append(Problem("distill: without a cache the teacher gets the student's own inputs", _CONSISTENT))
        if student.annotations != Annotations():
            message = f"distill: the student is already {student.annotations.precision.value}; training would undo that"
            problems.append(Problem(message, "put distill before quantize in the recipe"))
        problems += self.augment.check(spec) or self._unmixable(spec)
        problems += self._unfreezable(student)
        return problems or self._unmatched_losses(student, context)

    def key(self, inputs: Digest) -> Digest:
        """Return the digest of these options, the code version and the inputs."""
        options = self.model_dump(mode="json")
        return digest_json({"stage": self.name, "version": _VERSION, "options": options, "inputs": inputs})

    def run(self, student: Student, context: StageContext) -> Student:
        """Train a copy. Resumes from ``context.folder``. Raises Interrupted, Diverged and ConfigurationError."""
        from edgekd.distill.loop import train
        from edgekd.distill.predict import validator

        problems = self.check(student, context)
        if problems:
            raise ConfigurationError(problems)
        module = copy.deepcopy(student.module).requires_grad_(True)
        _freeze(module, self.freeze)
        networks = self._networks(student, context)
        objective = self._objective(module, networks, context)
        with self._teacher_source(context, objective.teacher_points) as teacher_source:
            trained = train(
                module,
                self._training_data(context, teacher_source),
                objective,
                self._plan(student, context),
                context.folder,
                validate=validator(context.task),
                progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
                stop=context.stop,
                late=context.late,
            )
        return student.but(module=trained.module)

    def prepare(self, context: StageContext) -> None:
        """Cache the teacher's outputs for every view: a short training would need a few of them only."""
        from edgekd.distill.layer_matching import teacher_points
        from edgekd.teachers.observed import teacher_layout

        if not self.cache or context.teacher is None:
            return
        losses = [loss for _, loss in self.loss.features]
        layout = teacher_layout(context.teacher, context.task.spec.input) if losses else None
        points = [point for loss in losses if layout for point in teacher_points(loss, layout)]
        with self._teacher_source(context, tuple(dict.fromkeys(points))):
            pass

    @property
    def passes(self) -> int:
        """Total number of epochs."""
        return self.epochs

    def batch_size_for(self, images: int) -> int:
        """Return the batch size for so many images: the option, or 16 to 128 for 20 steps an epoch or more.

        Large batches of few images make so few steps that nothing is learnt: 624 of them in 128s are 5 steps an epoch.
        """
        if self.batch_size is not None:
            return self.batch_size
        fitting = [size for size in _BATCHES if size * _STEPS_AN_EPOCH <= images]
        return fitting[-1] if fitting else _BATCHES[0]

    def steps(self, images: int) -> int:
        """Return the steps of an epoch over so many images."""
        return max(1, math.ceil(images / self.batch_size_for(images)))

    def plain(self, **changes: Any) -> Distill:
        """Return plain `distill` with the same options, and some changed."""
        return Distill.model_validate({**{name: getattr(self, name) for name in Distill.model_fields}, **changes})

    def cut_to(self, share: float) -> Self:
        """Return the same stage with this share of its epochs, at least one."""
        return self.but(epochs=max(1, round(share * self.epochs)))

    def shortened(self, epochs: int) -> Distill:
        """Return the same stage with at most ``epochs`` epochs."""
        return self.but(epochs=min(epochs, self.epochs))

    @contextmanager
    def training_data(
        self, student: Student, context: StageContext, recovers: bool = False
    ) -> Iterator[tuple[TrainingData, Combined, Plan]]:
        """Yield this stage's training data, losses and plan, for a training of another kind.

        Feature losses are left out: they are matched to one student's layers. ``recovers``: use the defaults for
        trained weights.
        """
        with self._teacher_source(context, ()) as teacher_source:
            yield self._training_data(context, teacher_source), self._smoothed(), self._plan(student, context, recovers)

    def view_seeds(self) -> tuple[int, ...]:
        """Return the seeds of the views, the same in every run, so that runs share cached teacher outputs."""
        views = self.views or (_DEFAULT_VIEWS if self.loss.needs_teacher and self.cache else self.epochs)
        return tuple(range(min(views, self.epochs)))

    def _training_data(self, context: StageContext, teacher_source: TeacherSource | None) -> TrainingData:
        from edgekd.distill.heads.targets import targets_of
        from edgekd.distill.loop import TrainingData
        from edgekd.teachers.cache import shared

        train, spec = context.task.split("train"), context.task.spec
        view, seeds = self._views(spec)
        return TrainingData(
            inputs=shared(train.inputs),
            labels=shared(train.labels) if spec.plain else targets_of(spec, train.labels),
            spec=spec.input,
            view=view,
            view_seeds=seeds,
            teacher=teacher_source,
            classes=spec.head.classes,
            heads=None if spec.plain else spec,
        )

    def _of_heads(self, student: Student, context: StageContext) -> list[Problem]:
        """Return the problems of a multi-head training."""
        from edgekd.distill.heads.validation import head_problems
        from edgekd.teachers.packing import packing_in

        spec = context.task.spec
        teacher_packing = packing_in(context.teacher) if self.loss.needs_teacher else ()
        smoothing = max((getattr(loss, "label_smoothing", 0.0) for _, loss in self._smoothed().parts), default=0.0)
        return head_problems(
            student, spec, teacher_packing, self.balance, smoothing, self.augment.view(spec), self.loss
        )

    def _views(self, spec: TaskSpec) -> tuple[View | None, tuple[int, ...]]:
        view, seeds = self.augment.view(spec), self.view_seeds()
        return view, seeds if view is not None else seeds[:1]

    @contextmanager
    def _teacher_source(self, context: StageContext, points: Sequence[Point]) -> Iterator[TeacherSource | None]:
        """Yield the teacher's outputs: from the cache, filled now, or, without a cache, computed batch by batch."""
        from edgekd.distill.teacher_source import CachedTeacher, live_teacher
        from edgekd.distill.trainer import training_device
        from edgekd.teachers.cache import TeacherCache

        teacher, spec = context.teacher, context.task.spec
        if not self.loss.needs_teacher or teacher is None:
            yield None
            return
        if not self.cache:
            kept = context.folder / _ASKED_FILE
            with live_teacher(teacher, spec.input, points, self._precisions(), training_device(), kept) as asked:
                yield asked
            return
        view, seeds = self._views(spec)
        seen = seeds if self.consistent else tuple(seed + _OTHER_VIEWS for seed in seeds)
        cache, train = TeacherCache(context.cache), context.task.split("train")
        size = format_bytes(cache.cost(teacher, train, view, seen, points).size_bytes)
        note = f"the teacher answers, {size} to keep"
        outputs = cache.outputs(
            teacher,
            train,
            view,
            seen,
            points,
            progress=lambda done, total: context.progress(StageProgress(self.name, done, total, note)),
            stop=context.stop,
            given=spec.input,
        )
        yield CachedTeacher(outputs)

    def _networks(self, student: Student, context: StageContext) -> Networks | None:
        """Return student and teacher for feature losses; None if all losses are on logits."""
        from edgekd.distill.layer_matching import Networks
        from edgekd.students.points import layout_of
        from edgekd.teachers.observed import teacher_layout

        if not self.loss.features or context.teacher is None:
            return None
        given = context.task.spec.input
        layout = teacher_layout(context.teacher, given)
        if layout is None or not isinstance(context.teacher, OpenTeacher):
            return None
        return Networks(
            student=layout_of(student.module, given),
            teacher=layout,
            teacher_network=context.teacher.network(),
            samples=len(context.task.split("train")),
            classes=context.task.spec.head.classes,
        )

    def _unmixable(self, spec: TaskSpec) -> list[Problem]:
        """Return the losses that need one label for each sample, if the augmentation mixes samples."""
        from edgekd.distill.augment.mixing import Mixed

        if self.loss.mixed_labels or not isinstance(self.augment.view(spec), Mixed):
            return []
        names = " and ".join(name for name, loss in self.loss.parts if not loss.mixed_labels)
        message = f"distill: {names} needs one label a sample, and augment mixes samples"
        return [Problem(message, "leave mixup and cutmix out, or use another loss")]

    def _unfreezable(self, student: Student) -> list[Problem]:
        """Return frozen names that are not parts of the student, or that are all of it."""
        from edgekd.students.heads.many import SharesTrunk

        known = dict(student.module.named_modules())
        unknown = [name for name in self.freeze if name not in known]
        if unknown:
            near = nearest_name(unknown[0], known)
            hint = f"did you mean `{near}`?" if near else f"its parts: {', '.join(name for name in known if name)}"
            return [Problem(f"distill: the student has no part `{unknown[0]}` to freeze", hint)]
        module = copy.deepcopy(student.module).requires_grad_(True)
        _freeze(module, self.freeze)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return [
                Problem(
                    "distill: every part of the student is frozen", "leave one out of freeze, so that it can be trained"
                )
            ]
        shared = module.shared_weights() if self.balance == "gradnorm" and isinstance(module, SharesTrunk) else ()
        if not all(weight.requires_grad for weight in shared):
            message = "distill: balance: gradnorm needs the gradient at the trunk's last layer, which is frozen"
            return [Problem(message, "leave it out of freeze, or use balance: uncertainty")]
        return []

    def _unmatched_losses(self, student: Student, context: StageContext) -> list[Problem]:
        """Return the reasons why a feature loss can't be used on these networks."""
        from edgekd.distill.layer_matching import match_layers

        if not self.loss.features or context.teacher is None:
            return []
        networks = self._networks(student, context)
        if networks is None:
            names = " and ".join(name for name, _ in self.loss.features)
            message = (
                f"distill: {names} needs the teacher's features, and `{context.teacher.name}` provides only logits"
            )
            remedy = "use a teacher of kind torch, train, timm or huggingface, or losses on logits: `edgekd losses`"
            return [Problem(message, remedy)]
        sites = [match_layers(name, loss, networks) for name, loss in self.loss.features]
        remedy = "write other points, as pairs of names, or another loss: `edgekd losses` lists what each needs"
        problems = [Problem(f"distill: {site}", remedy) for site in sites if isinstance(site, str)]
        problems = problems or self._unreachable(student, networks.student, sites)
        return problems or self._unattachable(student, networks, context)

    def _unattachable(self, student: Student, networks: Networks, context: StageContext) -> list[Problem]:
        """Return the losses that can't add their layers to this student, tried on a copy."""
        layered = tuple((name, loss) for name, loss in self.loss.features if loss.adds_layers)
        if not layered:
            return []
        module = copy.deepcopy(student.module).requires_grad_(True)
        _freeze(module, self.freeze)
        try:
            self.but(loss=Combined(parts=layered))._objective(module, networks, context)
        except ConfigurationError as error:
            return [Problem(f"distill: {problem.message}", problem.remedy) for problem in error.problems]
        return []

    def _unreachable(self, student: Student, layout: Layout, sites: Sequence[Site | str]) -> list[Problem]:
        """Return the losses whose points depend on frozen parts only: they would have no gradient."""
        from edgekd.students.points import feeding

        if not self.freeze:
            return []
        module, problems = copy.deepcopy(student.module).requires_grad_(True), []
        _freeze(module, self.freeze)
        learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        for (name, loss), site in zip(self.loss.features, sites, strict=True):
            if loss.adds_layers or isinstance(site, str):
                continue
            points = sorted({own.name for own, _ in site.pairs})
            if not any(learning & feeding(module, layout, point, student.task.input) for point in points):
                message = f"distill: {name} compares {' and '.join(points)}, and all layers before are frozen"
                problems.append(Problem(message, "freeze less, write other points, or leave the loss out"))
        return problems

    def _objective(self, module: nn.Module, networks: Networks | None, context: StageContext) -> Objective:
        """Build all losses. ``module`` is changed if one of them needs other layers."""
        from edgekd.distill.layer_matching import match_layers
        from edgekd.distill.objective import Objective

        named = self.loss.features if networks is not None else ()
        sites = [site for each in named if networks and not isinstance(site := match_layers(*each, networks), str)]
        layout = networks.student if networks is not None else None
        return Objective.built(self._smoothed(), sites, module, layout, context.seed, self._heads(module, context))

    def _heads(self, module: nn.Module, context: StageContext) -> HeadsObjective | None:
        """Return the objective of several heads; None for one classification head."""
        from edgekd.distill.heads.objective import HeadsObjective
        from edgekd.students.heads.many import SharesTrunk
        from edgekd.teachers.packing import packing_in

        if context.task.spec.plain:
            return None
        weights = module.shared_weights() if isinstance(module, SharesTrunk) else ()
        return HeadsObjective(context.task.spec, self.balance, weights, packing_in(context.teacher))

    def _plan(self, student: Student, context: StageContext, recovers: bool = False) -> Plan:
        from edgekd.distill.loop import Plan
        from edgekd.students.student import has_inherited

        teacher = context.teacher.digest() if self.loss.needs_teacher and context.teacher is not None else None
        inputs = digest_json([student.arch.digest(), student.task.digest(), teacher, context.seed])
        inherited = recovers or has_inherited(student)
        images = len(context.task.split("train"))
        rate, warmup = (_RECOVERY_RATE, 0.0) if inherited else (_RATE, self._warmup(images))
        batch_size = self.batch_size_for(images)
        asked = self.learning_rate
        rate = asked if isinstance(asked, float) else rate * batch_size / _BATCHES[-1]
        warmup = warmup if self.warmup_epochs is None else self.warmup_epochs
        return Plan(
            digest=self.key(inputs),
            epochs=self.epochs,
            batch_size=batch_size,
            learning_rate=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup_epochs=min(warmup, self.epochs / 2),
            average=self.ema,
            schedule=self.schedule,
            clip=self.clip,
            precisions=self._precisions(),
            seed=context.seed,
            keep_best=inherited and self.loss.on_logits,
            keeps_start=context.keeps_start and not recovers,
            tests_range=asked == "auto",
        )

    def _warmup(self, images: int) -> float:
        """Default epochs of warm-up for random weights: one, or more where that is a few steps; a tenth at most."""
        return max(_WARMUP, min(_WARMUP_STEPS / self.steps(images), self.epochs / 10))

    def _precisions(self) -> tuple[Precision, ...]:
        return ("float32", "bfloat16") if self.precision == "auto" else (self.precision,)

    def _smoothed(self) -> Combined:
        if self.label_smoothing is None:
            return self.loss
        smoothing = {"label_smoothing": self.label_smoothing}
        return Combined(
            parts=tuple((name, loss.but(**smoothing) if name == "ce" else loss) for name, loss in self.loss.parts)
        )


def _freeze(module: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        module.get_submodule(name).requires_grad_(False)


def _parts(data: dict[str, Any]) -> Sequence[tuple[str, Any]]:
    loss = data.get("loss")
    return loss.parts if isinstance(loss, Combined) else ()
