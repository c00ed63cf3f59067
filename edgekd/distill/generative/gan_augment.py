"""The recipe stage `gan-augment`: where images are few, a generator learns from them and draws more.

The teacher labels what was drawn, and `distill` goes on with real and drawn images together: all its options are this
stage's too. What the teacher knows beyond the few images at hand, it can say about images like them (Liu et al.
2018, "Teacher-student compression with generative adversarial networks", arXiv 1812.02271). The generator is trained
once for all students of a project, and what it drew is kept beside the teacher's answers in the cache::

    CACHE/generated/KEY/images.safetensors    `images` (N, C, H, W) in the task's raw type
    CACHE/generated/KEY/checkpoint.safetensors    while it learns
    CACHE/generated/KEY.lock
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.distill.generative.data_free import image_problems
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Problem
from edgekd.events import StageProgress
from edgekd.records import Digest, Record, digest_json
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Score, Split, SplitName, Task, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Gan", "GanAugment"]

_VERSION = 1  # raised when the same options train to another result
_SHOWN = 64


class Gan(Record):
    """Options of the generator and its discriminator. ``width`` is the generator's last hidden layer's channels.

    The discriminator learns at four times ``learning_rate``.
    """

    steps: PositiveInt = 2000
    batch_size: Annotated[int, Field(ge=2)] = 64
    latent: PositiveInt = 64
    width: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-4


class GanAugment(Distill):
    """Options of `gan-augment`: those of `distill`, the generator's, and how many images are drawn a real one."""

    name: ClassVar[str] = "gan-augment"

    ratio: PositiveFloat = 4.0
    gan: Gan = Gan()

    def images(self, samples: int) -> int:
        """That the student sees, drawn and real."""
        return round(samples * (1 + self.ratio)) * self.epochs

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """What `distill` finds, and: a teacher to label, images that a generator can draw."""
        problems = [*super().check(student, context), *image_problems(context.task.spec)]
        if context.teacher is None and not self.loss.needs_teacher:
            problems.append(Problem("gan-augment: there is no teacher to label what is drawn", "add a teacher"))
        return problems

    def key(self, inputs: Digest) -> Digest:
        """Of these options, this version of the code, and what goes in."""
        return digest_json({"version": _VERSION, "distill": super().key(inputs)})

    def run(self, student: Student, context: StageContext) -> Student:
        """Train a copy. Resumes from ``context.folder``, and leaves ``pictures.png`` there.

        Raises Interrupted, Diverged and ConfigurationError.
        """
        import torch

        from edgekd.distill.generative.picture import write_pictures

        problems = self.check(student, context)
        if problems:
            raise ConfigurationError(problems)
        images = self._images(context)
        trained = super().run(student, self._enlarged(context, images))
        write_pictures(context.folder, torch.from_numpy(images[:_SHOWN]).float(), context.task.spec.input)
        return trained

    def prepare(self, context: StageContext) -> None:
        """The images, and the teacher's answers to every view of them and of the real ones."""
        if context.teacher is not None:
            super().prepare(self._enlarged(context, self._images(context)))

    def _enlarged(self, context: StageContext, images: NDArray[np.generic]) -> StageContext:
        import numpy as np
        import torch

        from edgekd.tasks.splits import digest_arrays

        assert context.teacher is not None  # as checked
        blocks = [torch.from_numpy(images[start : start + 256]).float() for start in range(0, len(images), 256)]
        labels = np.concatenate([context.teacher.logits(block).argmax(1).numpy() for block in blocks])
        train = context.task.split("train")
        inputs, labels = np.concatenate([train.inputs, images]), np.concatenate([train.labels, labels])
        split = Split("train", inputs, labels, digest_arrays(inputs, labels))
        return replace(context, task=_Enlarged(context.task, split))

    def _images(self, context: StageContext) -> NDArray[np.generic]:
        """Drawn images (N, C, H, W) in the task's raw type: kept ones, or a generator is trained for them now."""
        from filelock import FileLock

        from edgekd.distill.checkpoint import CHECKPOINT_FILE
        from edgekd.distill.generative.drawings import keep_images, kept_images
        from edgekd.distill.generative.gan import Contest, drawn, learn_to_draw
        from edgekd.teachers.cache import shared

        train, spec = context.task.split("train"), context.task.spec
        facts: dict[str, Any] = {"gan": self.gan.model_dump(mode="json"), "input": spec.input.model_dump(mode="json")}
        facts |= {"version": _VERSION, "train": train.digest, "flip": spec.flip, "seed": context.seed}
        digest, count = digest_json(facts), max(1, round(self.ratio * len(train)))
        folder = context.cache / "generated" / digest
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            found = kept_images(folder, count)
            if found is None:
                plan = Contest(
                    digest=digest,
                    steps=self.gan.steps,
                    batch_size=self.gan.batch_size,
                    latent=self.gan.latent,
                    width=self.gan.width,
                    learning_rate=self.gan.learning_rate,
                    flip=spec.flip,
                    seed=context.seed,
                )
                generator = learn_to_draw(
                    shared(train.inputs),
                    spec.input,
                    plan,
                    folder,
                    progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
                    stop=context.stop,
                )
                found = keep_images(folder, drawn(generator, count, context.seed), spec.input)
                (folder / CHECKPOINT_FILE).unlink()
        return found


@dataclass(frozen=True)
class _Enlarged:
    """A task with another training split."""

    task: Task
    train: Split

    @property
    def spec(self) -> TaskSpec:
        return self.task.spec

    def split(self, name: SplitName) -> Split:
        return self.train if name == "train" else self.task.split(name)

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        return self.task.score(outputs, labels)
