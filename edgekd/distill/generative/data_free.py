"""Data-free distillation, the recipe stage `data-free`: trains a student from the teacher alone, without training
images.

A generator draws images, the frozen teacher labels them with its logits, the student learns these; the generator exists
only during the training (synthesis.py). The teacher must be differentiable. The statistics that the teacher's BatchNorm
layers keep of its training images are the most useful guide (objective.py): with them the images look like the
teacher's training data. Validation images, if the task has any, are used for the learning curve only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgekd.distill.augment.chain import Augment
from edgekd.distill.generative.objective import PRESETS, Method, Term, TermWeights
from edgekd.distill.losses.combined import Combined
from edgekd.errors import ConfigurationError, EdgeKDError, Problem
from edgekd.events import StageProgress
from edgekd.ir.encoding import Annotations
from edgekd.records import Digest, Record, digest_json
from edgekd.stages import FLOAT_WEIGHTS, StageContext
from edgekd.students._protocol import Student
from edgekd.teachers._protocol import OpenTeacher

if TYPE_CHECKING:
    from torch import nn

    from edgekd.distill.generative.synthesis import LossAt, SynthesisPlan
    from edgekd.tasks._protocol import Score, TaskSpec
    from edgekd.teachers._protocol import View

__all__ = ["DataFree", "Sketcher", "image_problems"]

_VERSION = 2  # raised when the same options train to another result
_BANK = 10_000
_OPEN = "use a teacher of kind torch, train, timm or huggingface: those are PyTorch networks"


class Sketcher(Record):
    """Options of the generator. ``latent``: length of the noise; ``width``: channels of the last hidden layer."""

    latent: PositiveInt = 100
    width: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3


class DataFree(Record):
    """Options of `data-free`. An epoch is ``rounds`` rounds of one generator step and ``student_steps`` student steps.

    ``weights`` override single terms of the method's objective. ``bank`` is the number of generated images kept for
    training: default 10,000 with `combined`, none with `dafl` and `dfad`, as published. ``loss`` defaults to `kd`
    alone, or with `dfad` to the mean difference of logits; for `ce`, the labels are the teacher's top classes.
    """

    name: ClassVar[str] = "data-free"
    requires: ClassVar[frozenset[str]] = FLOAT_WEIGHTS
    per_backend: ClassVar[bool] = False  # its result does not depend on the backend

    method: Method = "combined"
    weights: Mapping[Term, NonNegativeFloat] = {}
    loss: Combined | None = None
    epochs: PositiveInt = 40
    rounds: PositiveInt = 20
    student_steps: PositiveInt = 5
    batch_size: Annotated[int, Field(ge=2)] = 128
    bank: NonNegativeInt | None = None
    generator: Sketcher = Sketcher()
    learning_rate: PositiveFloat = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    warmup_epochs: NonNegativeFloat = 1.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99  # decay of the running average of weights; 0: none
    augment: Augment = Augment()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @property
    def objective(self) -> TermWeights:
        """Weights of the generator's objective."""
        return PRESETS[self.method].but(**{str(term): weight for term, weight in self.weights.items()})

    @property
    def kept(self) -> int:
        """Number of images in the bank."""
        return (_BANK if self.method == "combined" else 0) if self.bank is None else self.bank

    @model_validator(mode="after")
    def _batch_fits_bank(self) -> Self:
        if 0 < self.kept < self.batch_size:
            raise ValueError(f"a bank of {self.kept} images can't fill a batch of {self.batch_size}: enlarge it")
        return self

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not any(dict(self.objective).values()):
            raise ValueError("every weight is zero, so the generator has no objective")
        return self

    def images(self, samples: int) -> int:
        """Return the number of images the student is trained on, all generated."""
        del samples
        return self.epochs * self.rounds * self.student_steps * self.batch_size

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return every reason the stage can't run: teacher, classes, inputs, annotations, losses, augmentation."""
        spec = context.task.spec
        problems = [*self._of_teacher(context), *image_problems(spec)]
        if student.task.head.classes != spec.head.classes or student.task.input.shape != spec.input.shape:
            message = (
                f"data-free: the student was built for {student.task.head.classes} classes and inputs "
                f"{student.task.input.shape}, task `{spec.name}` has {spec.head.classes} and {spec.input.shape}"
            )
            problems.append(Problem(message, "build the student for this task"))
        if student.annotations != Annotations():
            found = student.annotations.precision.value
            message = f"data-free: the student is already {found}; training would undo that"
            problems.append(Problem(message, "put data-free before quantize in the recipe"))
        if self.loss is not None and self.loss.features:
            names = " and ".join(name for name, _ in self.loss.features)
            message = f"data-free: {names} compares inner activations, and this stage compares only logits"
            problems.append(Problem(message, "use losses on logits, or `distill` with data"))
        return [*problems, *self.augment.check(spec)]

    def key(self, inputs: Digest) -> Digest:
        """Return the digest of these options, the code version and the inputs."""
        options = self.model_dump(mode="json")
        return digest_json({"stage": self.name, "version": _VERSION, "options": options, "inputs": inputs})

    def run(self, student: Student, context: StageContext) -> Student:
        """Train a copy. Resumes from ``context.folder`` and writes ``pictures.png`` there.

        Raises Interrupted, Diverged and ConfigurationError.
        """
        from edgekd.distill.generative.picture import write_pictures
        from edgekd.distill.generative.synthesis import synthesize

        problems = self.check(student, context)
        if problems:
            raise ConfigurationError(problems)
        assert isinstance(context.teacher, OpenTeacher)  # as checked
        spec = context.task.spec
        synthesized = synthesize(
            copy.deepcopy(student.module).requires_grad_(True),
            context.teacher,
            spec.input,
            self._view(spec),
            self._loss(),
            self._rounds(student, context),
            context.folder,
            validate=self._validation(context),
            progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
            stop=context.stop,
        )
        write_pictures(context.folder, synthesized.images, spec.input)
        return student.but(module=synthesized.module)

    def _of_teacher(self, context: StageContext) -> Sequence[Problem]:
        from edgekd.distill.generative.statistics import classifier_of, norms_of

        teacher, spec = context.teacher, context.task.spec
        if teacher is None:
            return [Problem("data-free: a teacher is needed, and there is none", "add a teacher")]
        if not isinstance(teacher, OpenTeacher):
            message = (
                f"data-free: teacher `{teacher.name}` provides only logits, and the generator needs its gradient; "
                "a file of another runtime can't be differentiated"
            )
            return [Problem(message, _OPEN)]
        problems = []
        if teacher.classes != spec.head.classes:
            message = (
                f"data-free: teacher `{teacher.name}` has {teacher.classes} classes, "
                f"task `{spec.name}` has {spec.head.classes}"
            )
            problems.append(Problem(message, "use a teacher trained on the same classes, in the same order"))
        if self.objective.bn and not norms_of(teacher.network()):
            message = f"data-free: teacher `{teacher.name}` has no BatchNorm layer for the statistics loss"
            problems.append(Problem(message, "set weights: {bn: 0}"))
        if self.objective.activation and classifier_of(teacher.network()) is None:
            message = f"data-free: teacher `{teacher.name}` has no linear layer for the activation loss"
            problems.append(Problem(message, "set weights: {activation: 0}"))
        return problems

    def _validation(self, context: StageContext) -> Callable[[nn.Module], Score] | None:
        """Return a function that scores a student on the validation split; None if the task has none."""
        from edgekd.distill.predict import validator

        try:
            return validator(context.task)
        except EdgeKDError as error:  # expected: this stage is for tasks without data
            context.progress(StageProgress(self.name, 0, self.epochs * self.rounds, f"not validated: {error.message}"))
            return None

    def _view(self, spec: TaskSpec) -> View | None:
        """Return the augmentation of the bank's images, which are bytes whatever the task's inputs are."""
        return self.augment.view(spec.but(input=spec.input.but(raw_dtype="uint8", raw_range=(0.0, 255.0))))

    def _loss(self) -> LossAt:
        from edgekd.distill.generative.terms import distance

        if self.loss is None and self.method == "dfad":
            return lambda _: lambda student, teacher, _: distance(student, teacher)
        return (self.loss or Combined.model_validate({"kd": {"weight": 1.0}})).at

    def _rounds(self, student: Student, context: StageContext) -> SynthesisPlan:
        from edgekd.distill.generative.synthesis import SynthesisPlan

        assert context.teacher is not None
        facts: list[Any] = [student.arch.digest(), student.task.digest(), context.teacher.digest(), context.seed]
        return SynthesisPlan(
            digest=self.key(digest_json(facts)),
            epochs=self.epochs,
            rounds=self.rounds,
            student_steps=self.student_steps,
            batch_size=self.batch_size,
            objective=self.objective,
            latent=self.generator.latent,
            width=self.generator.width,
            generator_rate=self.generator.learning_rate,
            bank=self.kept,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup_epochs=min(self.warmup_epochs, self.epochs / 2),
            average=self.ema,
            precisions=("float32", "bfloat16") if self.precision == "auto" else (self.precision,),
            seed=context.seed,
        )


def image_problems(spec: TaskSpec) -> Sequence[Problem]:
    """Return the reasons why a generator can't draw this task's inputs."""
    from edgekd.distill.generative.generator import SMALLEST_SIDE

    if not spec.plain:
        message = f"generated images are labelled for one classification head, and task `{spec.name}` has others"
        return [Problem(message, "use `distill` with data")]
    shape = spec.input.shape
    if len(shape) == 3 and min(shape[1:]) >= SMALLEST_SIDE:
        return []
    message = f"the generator draws images (channels, height, width) of {SMALLEST_SIDE} pixels a side or more"
    return [Problem(f"{message}, and this task's input is {shape}", "use `distill` with data")]
