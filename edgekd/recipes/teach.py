"""The teacher kind `train`: a wide student of one of the families, trained here once, on the task's own labels.

For projects that bring no teacher: ``teacher: {kind: train, family: resnet, width: 48, depth: 1, epochs: 30}``. It is
stored by digest under the cache folder, as any student is, and answers like a teacher that was brought along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr

from edgekd import plugins
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, EdgeKDError
from edgekd.records import Digest, Record, digest_json
from edgekd.students._protocol import Arch, Family, StageContext, StageProgress
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.teachers.packing import Packed, layout_of, packed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.distill.inputs import Normalisation

__all__ = ["TrainedTeacher"]


class TrainedTeacher(Record):
    """Options of `train`. Call ``prepare`` before it is asked anything.

    ``width`` is the first stage's; every further stage doubles it. Other families take the top of their space.
    """

    family: str = "resnet"
    width: PositiveInt = 32
    depth: PositiveInt = 1
    epochs: PositiveInt = 20
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: PositiveFloat = 0.1
    seed: NonNegativeInt = 0

    _module: nn.Module | None = PrivateAttr(None)
    _normalise: Normalisation | None = PrivateAttr(None)
    _trained: Digest = PrivateAttr("")
    _classes: int = PrivateAttr(0)
    _layout: tuple[Packed, ...] = PrivateAttr(())

    @property
    def name(self) -> str:
        """As it is shown."""
        return (
            f"{self.family} of width {self.width}, trained here"
            if self.family == "resnet"
            else f"{self.family}, trained here"
        )

    @property
    def classes(self) -> int:
        """How many it tells apart; 0 before ``prepare``."""
        return self._classes

    @property
    def layout(self) -> tuple[Packed, ...]:
        """How raw answers are packed where the task isn't plain."""
        return self._layout

    def digest(self) -> Digest:
        """Of its options and, once prepared, the key of its training: the task, the first weights, the recipe."""
        return digest_json({"teacher": "train", "options": self.model_dump(mode="json"), "trained": self._trained})

    def logits(self, batch: Tensor) -> Tensor:
        """Answers (N, classes), float32, for raw-unit float32 (N, C, H, W). Raises EdgeKDError before ``prepare``."""
        import torch

        if self._module is None or self._normalise is None:
            raise EdgeKDError("this teacher is not trained yet", "call prepare(task, ...), and ask what it returns")
        with torch.inference_mode():
            answers = self._module(self._normalise(batch))
        rows: Tensor = packed(answers) if self._layout else answers.float()
        return rows.clone()

    def prepare(
        self,
        task: Task,
        cache: Path,
        progress: Callable[[StageProgress], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> TrainedTeacher:
        """A teacher that answers: trained now, or read from ``cache``. This one is not changed.

        Raises Interrupted when ``stop()``; called again it goes on from there.
        """
        from edgekd.distill.inputs import Normalisation
        from edgekd.recipes.runner import run_recipe
        from edgekd.students.student import new_student

        spec = task.spec
        family = self._family(spec)
        student = new_student(family, self._arch(family, spec), spec, self.seed)
        lesson: Mapping[str, Any] = {
            "loss": {"ce": {}},
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        }
        context = StageContext(
            task=task,
            teacher=None,
            device=None,
            backend=None,
            folder=cache / "teachers" / "stages",
            cache=cache,
            seed=self.seed,
            progress=lambda at: progress(StageProgress("teacher", at.done, at.total, at.note)),
            stop=stop,
        )
        trained = run_recipe([Distill.model_validate(lesson)], student, context, cache / "teachers" / "students")
        ready = self.model_copy()
        ready._module = trained.student.module.eval()
        ready._normalise = Normalisation(spec.input)
        ready._trained, ready._classes = trained.key, spec.head.classes
        if not spec.plain:
            ready._layout = self._layout_for(ready._module, spec)
            ready._classes = sum(part.size for part in ready._layout)
        return ready

    def _layout_for(self, module: nn.Module, spec: TaskSpec) -> tuple[Packed, ...]:
        import torch

        with torch.inference_mode():
            return layout_of(module(torch.zeros((1, *spec.input.shape))))

    def _family(self, spec: TaskSpec) -> Family:
        stages = _stages(spec)
        options = {"stages": stages, "space": self._space(stages)} if self.family == "resnet" else {}
        family: Family = plugins.load("edgekd.families", self.family).model_validate(options)
        if family.inherits:
            raise ConfigurationError.one(
                f"the family `{self.family}` brings its own weights, so there is no teacher to train from it",
                "use family: resnet",
            )
        return family

    def _space(self, stages: int) -> Mapping[str, Any]:
        return {"width": (self.width, self.width * 2 ** (stages - 1), self.width), "depth": (self.depth, self.depth)}

    def _arch(self, family: Family, spec: TaskSpec) -> Arch:
        space = family.space(spec)
        if self.family != "resnet":
            return Arch.of({axis.name: axis.choices[-1] for axis in space.axes})
        widths = {f"width{stage + 1}": self.width * 2**stage for stage in range(_stages(spec))}
        depths = {f"depth{stage + 1}": self.depth for stage in range(_stages(spec))}
        return Arch.of({**widths, **depths})


def _stages(spec: TaskSpec) -> int:
    """As many halvings as leave two pixels or more, three stages at the most."""
    side = min(spec.input.shape[1:])
    return 3 if side >= 8 else 2 if side >= 4 else 1
