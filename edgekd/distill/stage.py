"""The recipe stage `distill`: trains a student on the task, with a teacher or (``loss: ce``) without one.

The teacher answers ``views`` ways of seeing the training samples once, into the cache; epoch e uses view e modulo
that many. Each view costs one pass of the teacher; by multiply-adds, a pass of a ResNet-56 is worth about three
epochs of a ResNet-8. So the default is four: a small student meets four times the samples, and a longer training
pays nothing more. Without a teacher a view costs nothing, and every epoch has its own.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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
from edgekd.errors import ConfigurationError, Problem
from edgekd.records import Digest, Record, digest_json
from edgekd.students._protocol import Annotations, StageContext, StageProgress, Student

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.distill.heads.objective import Objective
    from edgekd.distill.loop import Lesson, Plan
    from edgekd.distill.probe import Precision
    from edgekd.tasks._protocol import TaskSpec
    from edgekd.teachers._protocol import View

__all__ = ["Distill"]

_VERSION = 2  # raised when the same options train to another result
_DEFAULT_VIEWS = 4


class Distill(Record):
    """Options of `distill`. The defaults suit small convolutional networks and short trainings."""

    name: ClassVar[str] = "distill"
    per_backend: ClassVar[bool] = False  # its result is the same whatever the student is meant for

    loss: Combined = Field(default_factory=lambda: Combined.model_validate({"kd": {}}))
    epochs: PositiveInt = 40
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: PositiveFloat = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    warmup_epochs: NonNegativeFloat = 1.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None  # the same as loss.ce.label_smoothing
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999  # decay of the running average of weights; 0: none
    views: PositiveInt | None = None  # at most `epochs` are used
    augment: Augment = Augment()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    balance: BalanceName = "none"  # between several heads; see distill/heads/balance.py

    @field_validator("label_smoothing")
    @classmethod
    def _one_smoothing(cls, value: float | None, info: ValidationInfo) -> float | None:
        written = [getattr(loss, "label_smoothing", 0.0) for name, loss in _parts(info.data) if name == "ce"]
        if value is not None and not written and "loss" in info.data:
            raise PydanticCustomError("loss", "there is no label to smooth: the loss has no `ce`")
        if value is not None and written and written[0] not in (0.0, value):
            raise PydanticCustomError(
                "loss", "loss.ce.label_smoothing says {written}: write one of the two", {"written": f"{written[0]:g}"}
            )
        return value

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """``balance`` left out where nothing is balanced, so that such a stage keeps the key it always had."""
        return {name: value for name, value in handler(self).items() if name != "balance" or value != "none"}

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Every reason it can't run: teacher, classes, task, annotations, augmentation."""
        problems = self._of_heads(student, context)
        spec, teacher = context.task.spec, context.teacher
        if self.loss.needs_teacher and teacher is None:
            message = "distill: the loss needs a teacher, and the project has none"
            problems.append(Problem(message, "add a teacher, or train on labels alone with loss: {ce: {}}"))
        plain = self.loss.needs_teacher and teacher is not None and spec.plain
        if plain and teacher is not None and teacher.classes != spec.head.classes:
            message = (
                f"distill: teacher `{teacher.name}` tells {teacher.classes} classes apart, "
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
        if student.annotations != Annotations():
            message = f"distill: the student is already {student.annotations.precision.value}; training would undo that"
            problems.append(Problem(message, "put distill before quantize in the recipe"))
        return [*problems, *self.augment.check(spec)]

    def key(self, inputs: Digest) -> Digest:
        """Of these options, this version of the code, and what goes in."""
        options = self.model_dump(mode="json")
        return digest_json({"stage": self.name, "version": _VERSION, "options": options, "inputs": inputs})

    def run(self, student: Student, context: StageContext) -> Student:
        """Train a copy. Resumes from ``context.folder``. Raises Interrupted, Diverged and ConfigurationError."""
        from edgekd.distill.loop import train

        problems = self.check(student, context)
        if problems:
            raise ConfigurationError(problems)
        validation = context.task.split("validation")

        def validate(module: Any) -> float:
            from edgekd.distill.predict import predict

            return context.task.score(predict(module, validation.inputs, context.task.spec), validation.labels).value

        module = copy.deepcopy(student.module).requires_grad_(True)
        trained = train(
            module,
            self._lesson(context),
            self._smoothed() if context.task.spec.plain else self._objective(module, context),
            self._plan(student, context),
            context.folder,
            validate=validate if len(validation) else None,
            progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
            stop=context.stop,
        )
        return student.but(module=trained.module)

    def prepare(self, context: StageContext) -> None:
        """The teacher's answers to every view: a short training would ask for a few of them only."""
        self._answers(context)

    def view_seeds(self) -> tuple[int, ...]:
        """The seeds of the views, the same for every run, so that runs share the teacher's answers."""
        views = self.views or (_DEFAULT_VIEWS if self.loss.needs_teacher else self.epochs)
        return tuple(range(min(views, self.epochs)))

    def _lesson(self, context: StageContext) -> Lesson:
        from edgekd.distill.heads.targets import targets_of
        from edgekd.distill.loop import Lesson

        train, spec = context.task.split("train"), context.task.spec
        view, seeds = self._views(spec)
        return Lesson(
            inputs=_shared(train.inputs),
            labels=_shared(train.labels) if spec.plain else targets_of(spec, train.labels),
            spec=spec.input,
            view=view,
            view_seeds=seeds,
            answers=self._answers(context),
            heads=None if spec.plain else spec,
        )

    def _of_heads(self, student: Student, context: StageContext) -> list[Problem]:
        """What several heads can't have."""
        from edgekd.distill.heads.batches import follows
        from edgekd.students.heads.many import SharesTrunk

        spec = context.task.spec
        problems = []
        if spec.plain:
            if self.balance != "none":
                problems.append(Problem(f"distill: balance: {self.balance} is for several heads", "leave balance out"))
            return problems
        if self.balance == "gradnorm" and not isinstance(student.module, SharesTrunk):
            message = f"distill: balance: gradnorm needs to know what all heads of a {student.family} student share"
            problems.append(Problem(message, "use balance: uncertainty"))
        if not follows(self.augment.view(spec)):
            message = f"distill: boxes and masks of task `{spec.name}` can't go where these views move pixels"
            problems.append(Problem(message, "use augment: {crop: ..., flip: ...} alone"))
        return problems

    def _objective(self, module: nn.Module, context: StageContext) -> Objective:
        from edgekd.distill.heads.objective import Objective
        from edgekd.students.heads.many import SharesTrunk
        from edgekd.teachers.packing import layout_in

        shared = module.shared_weights() if isinstance(module, SharesTrunk) else ()
        return Objective(context.task.spec, self._smoothed(), self.balance, shared, layout_in(context.teacher))

    def _views(self, spec: TaskSpec) -> tuple[View | None, tuple[int, ...]]:
        view, seeds = self.augment.view(spec), self.view_seeds()
        return view, seeds if view is not None else seeds[:1]

    def _answers(self, context: StageContext) -> NDArray[np.float32] | None:
        from edgekd.teachers.cache import TeacherCache

        if not self.loss.needs_teacher or context.teacher is None:
            return None
        view, seeds = self._views(context.task.spec)
        return TeacherCache(context.cache).answers(
            context.teacher,
            context.task.split("train"),
            view,
            seeds,
            progress=lambda done, total: context.progress(StageProgress(self.name, done, total, "the teacher answers")),
            stop=context.stop,
        )

    def _plan(self, student: Student, context: StageContext) -> Plan:
        from edgekd.distill.loop import Plan

        allowed: tuple[Precision, ...] = ("float32", "bfloat16") if self.precision == "auto" else (self.precision,)
        teacher = context.teacher.digest() if self.loss.needs_teacher and context.teacher is not None else None
        inputs = digest_json([student.arch.digest(), student.task.digest(), teacher, context.seed])
        return Plan(
            digest=self.key(inputs),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup_epochs=min(self.warmup_epochs, self.epochs / 2),
            average=self.ema,
            precisions=allowed,
            seed=context.seed,
        )

    def _smoothed(self) -> Combined:
        if self.label_smoothing is None:
            return self.loss
        written = self.loss.model_dump(mode="json")
        return Combined.model_validate({**written, "ce": {**written["ce"], "label_smoothing": self.label_smoothing}})


def _shared(array: NDArray[np.generic]) -> Tensor:
    """The same memory as a tensor, which nothing writes to: a training set may fill half of the machine."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _parts(data: dict[str, Any]) -> Sequence[tuple[str, Any]]:
    loss = data.get("loss")
    return loss.parts if isinstance(loss, Combined) else ()
