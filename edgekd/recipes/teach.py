"""Teacher kind `train`: a wide student of one of the families, trained here once, on labels or with another teacher.

For projects that bring no teacher: ``teacher: {kind: train, family: resnet, width: 48, depth: 1, epochs: 30}``. It is
stored by digest under the cache folder like any student, and is used like any teacher.

With its own ``teacher`` it is a teacher assistant, between a teacher and a student too small for it (Mirzadeh et al.
2020, "Improved knowledge distillation via teacher assistant", AAAI): ``{kind: train, width: 24, teacher: {kind: torch,
...}}``. Its teacher may have one again; each assistant of such a chain is trained once, from the largest down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)  # fmt: skip

from edgekd import plugins
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, EdgeKDError
from edgekd.events import StageProgress
from edgekd.ir.space import Arch
from edgekd.records import Digest, Extended, digest_json
from edgekd.stages import StageContext
from edgekd.students._protocol import Family
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.teachers.nested import made_teacher, prepared_teacher, resolved_teacher

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.teachers._protocol import Teacher
    from edgekd.teachers.student import StudentTeacher

__all__ = ["TrainedTeacher"]


class TrainedTeacher(Extended):
    """Options of `train`. Call ``prepare`` before using it.

    ``width`` is the first stage's; every further stage doubles it, and all other axes have the family's largest choice.
    Families without stages take the top of their space. ``options`` are the family's own, as in the student's section.
    The default loss is `kd` with a teacher, `ce` without.
    """

    added: ClassVar[frozenset[str]] = frozenset({"options"})
    family: str = "resnet"
    width: PositiveInt = 32
    depth: PositiveInt = 1
    epochs: PositiveInt = 20
    batch_size: Annotated[int, Field(ge=2)] | None = None  # as of `distill`
    learning_rate: PositiveFloat | None = None
    seed: NonNegativeInt = 0

    options: Mapping[str, Any] = {}
    teacher: Mapping[str, Any] | None = None
    loss: Combined | None = None

    @field_validator("teacher")
    @classmethod
    def _resolved(cls, teacher: Mapping[str, Any] | None, info: ValidationInfo) -> Mapping[str, Any] | None:
        """Validate the teacher's options, and make its paths absolute while the project's folder is known."""
        return None if teacher is None else resolved_teacher(teacher, info.context)

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.loss is not None and self.loss.needs_teacher and self.teacher is None:
            raise ValueError("the loss needs a teacher, and this one has none: give it a `teacher`, or `loss: ce`")
        if self.loss is not None and not self.loss.needs_teacher and self.teacher is not None:
            raise ValueError("the loss needs no teacher: leave `teacher` out, or `loss`, which is then kd")
        return self

    @property
    def name(self) -> str:
        """Name in reports."""
        return (
            f"{self.family} of width {self.width}, trained here" if self._in_stages else f"{self.family}, trained here"
        )

    @property
    def classes(self) -> int:
        """0: ``prepare`` returns the teacher with a number of classes."""
        return 0

    def digest(self) -> Digest:
        """Return the digest of the options; the teacher that ``prepare`` returns is identified by its weights."""
        return digest_json({"teacher": "train", "options": self.model_dump(mode="json")})

    def logits(self, batch: Tensor) -> Tensor:
        """Raise EdgeKDError: use the teacher that ``prepare`` returns."""
        del batch
        raise EdgeKDError(
            "this teacher is not trained yet", "call prepare(task, ...), and use the teacher that it returns"
        )

    def prepare(
        self,
        task: Task,
        cache: Path,
        progress: Callable[[StageProgress], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> StudentTeacher:
        """Return the trained teacher: trained now, after its own teacher, or read from ``cache``.

        Raises Interrupted when ``stop()``; a second call resumes.
        """
        from edgekd.recipes.runner import run_recipe
        from edgekd.students.student import new_student
        from edgekd.teachers.student import StudentTeacher

        spec = task.spec
        if not len(task.split("train")):
            raise ConfigurationError.one(
                f"a teacher of kind train is trained here, and task `{spec.name}` has no training samples",
                "bring one that is trained: kind torch, onnx, tflite, ...",
            )
        family = self._family(spec)
        student = new_student(family, self._arch(family, spec), spec, self.seed)
        above = self._own_teacher(task, cache, progress, stop)
        context = StageContext(
            task=task,
            teacher=above,
            device=None,
            backend=None,
            folder=cache / "teachers" / "stages",
            cache=cache,
            seed=self.seed,
            progress=lambda at: progress(StageProgress("teacher", at.done, at.total, at.note)),
            stop=stop,
        )
        trained = run_recipe([self._distill_stage()], student, context, cache / "teachers" / "students")
        return StudentTeacher(trained.student, self.name, above)

    def untrained(self, spec: TaskSpec) -> StudentTeacher:
        """Return what ``prepare`` returns, with random weights, to check feature losses before the training."""
        from edgekd.students.student import new_student
        from edgekd.teachers.student import StudentTeacher

        family = self._family(spec)
        return StudentTeacher(new_student(family, self._arch(family, spec), spec, self.seed), self.name, None)

    def _own_teacher(
        self, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
    ) -> Teacher | None:
        from edgekd.teachers.binding import bind

        if self.teacher is None:
            return None
        ready = prepared_teacher(made_teacher(self.teacher), task, cache, progress, stop)
        return bind(ready, task.spec)

    def _distill_stage(self) -> Distill:
        loss = self.loss.model_dump(mode="json") if self.loss is not None else {"kd" if self.teacher else "ce": {}}
        return Distill.model_validate(
            {
                "loss": loss,
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
            }
        )

    @property
    def _in_stages(self) -> bool:
        """True for families with stages. Raises UnknownName."""
        from edgekd.students.staged import Staged

        return issubclass(plugins.load("edgekd.families", self.family), Staged)

    def _family(self, spec: TaskSpec) -> Family:
        if not self._in_stages:
            return self._made(self.options)
        shallow: Any = self._made(self._staged(1))
        side = min(shallow.seen(spec)[1:]) // max(shallow.space_.stem_stride)
        return self._made(self._staged(self.options.get("stages") or _stages(side)))

    def _staged(self, stages: int) -> dict[str, Any]:
        """Return the options of a family with stages."""
        widths = (self.width, self.width * 2 ** (stages - 1), self.width)
        written = self.options.get("space", {})
        if not isinstance(written, Mapping):
            raise ConfigurationError.one(
                f"teacher.options.space is {written!r}: a mapping is expected", "for example {stem_stride: [2]}"
            )
        return {**self.options, "stages": stages, "space": {"width": widths, "depth": (self.depth,) * 2, **written}}

    def _made(self, options: Mapping[str, Any]) -> Family:
        try:
            family: Family = plugins.load("edgekd.families", self.family).model_validate(options)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            place = ".".join(map(str, first["loc"]))
            raise ConfigurationError.one(f"teacher.options.{place}: {first['msg']}", "see `student`") from None
        if family.inherits:
            raise ConfigurationError.one(
                f"the family `{self.family}` brings its own weights, so there is no teacher to train from it",
                "use family: resnet",
            )
        return family

    def _arch(self, family: Family, spec: TaskSpec) -> Arch:
        space = family.space(spec)
        most = {axis.name: axis.choices[-1] for axis in space.axes}
        own = self._in_stages and not {"width", "widths"} & set(self.options.get("space", {}))
        for name in most:
            if own and name.startswith("width"):
                most[name] = self.width * 2 ** (int(name.removeprefix("width")) - 1)
        return space.arch(most)


def _stages(side: int) -> int:
    """Return the number of stages, at most three, that leave two pixels or more of a side."""
    return 3 if side >= 8 else 2 if side >= 4 else 1
