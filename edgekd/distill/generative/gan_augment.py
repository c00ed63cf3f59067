"""GAN augmentation, the recipe stage `gan-augment`: a generator trained on a small training split draws more images.

The teacher labels the drawn images, and `distill` goes on with real and drawn images together; this stage has all its
options. So the student learns what the teacher knows about images like the few at hand (Liu et al. 2018,
"Teacher-student compression with generative adversarial networks", arXiv 1812.02271). The generator is trained once for
all students of a project, and its images are stored in the cache beside the teacher's logits::

    CACHE/generated/KEY/images.safetensors    `images` (N, C, H, W) in the task's raw type
    CACHE/generated/KEY/checkpoint.safetensors    during the training
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
    """Options of the generator and its discriminator. ``width``: channels of the generator's last hidden layer.

    The discriminator's learning rate is four times ``learning_rate``.
    """

    steps: PositiveInt = 2000
    batch_size: Annotated[int, Field(ge=2)] = 64
    latent: PositiveInt = 64
    width: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-4


class GanAugment(Distill):
    """Options of `gan-augment`: those of `distill`, the generator's, and the ratio of drawn to real images."""

    name: ClassVar[str] = "gan-augment"

    ratio: PositiveFloat = 4.0
    gan: Gan = Gan()

    def images(self, samples: int) -> int:
        """Return the number of images the student is trained on, drawn and real."""
        return round(samples * (1 + self.ratio)) * self.epochs

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems of `distill`, a missing teacher, and images that a generator can't draw."""
        problems = [*super().check(student, context), *image_problems(context.task.spec)]
        if context.teacher is None and not self.loss.needs_teacher:
            problems.append(Problem("gan-augment: there is no teacher to label what is drawn", "add a teacher"))
        return problems

    def key(self, inputs: Digest) -> Digest:
        """Return the digest of these options, the code version and the inputs."""
        return digest_json({"version": _VERSION, "distill": super().key(inputs)})

    def run(self, student: Student, context: StageContext) -> Student:
        """Train a copy. Resumes from ``context.folder`` and writes ``pictures.png`` there.

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
        """Generate the images, and compute the teacher's logits for every view of them and of the real ones."""
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
        """Return drawn images (N, C, H, W) in the task's raw type: stored ones, or from a generator trained now."""
        from filelock import FileLock

        from edgekd.distill.checkpoint import CHECKPOINT_FILE
        from edgekd.distill.generative.gan import GanPlan, sample_images, train_generator
        from edgekd.distill.generative.generated_images import read_images, write_images
        from edgekd.teachers.cache import shared

        train, spec = context.task.split("train"), context.task.spec
        facts: dict[str, Any] = {"gan": self.gan.model_dump(mode="json"), "input": spec.input.model_dump(mode="json")}
        facts |= {"version": _VERSION, "train": train.digest, "flip": spec.flip, "seed": context.seed}
        digest, count = digest_json(facts), max(1, round(self.ratio * len(train)))
        folder = context.cache / "generated" / digest
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            found = read_images(folder, count)
            if found is None:
                plan = GanPlan(
                    digest=digest,
                    steps=self.gan.steps,
                    batch_size=self.gan.batch_size,
                    latent=self.gan.latent,
                    width=self.gan.width,
                    learning_rate=self.gan.learning_rate,
                    flip=spec.flip,
                    seed=context.seed,
                )
                generator = train_generator(
                    shared(train.inputs),
                    spec.input,
                    plan,
                    folder,
                    progress=lambda done, total, note: context.progress(StageProgress(self.name, done, total, note)),
                    stop=context.stop,
                )
                found = write_images(folder, sample_images(generator, count, context.seed), spec.input)
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
