"""GAN training: a generator learns from a few real images and a discriminator (Goodfellow et al.

2014; hinge loss: Lim & Ye 2017, arXiv 1705.02894).

    discriminator:  mean max(0, 1 - D(real)) + mean max(0, 1 + D(generated))
    generator:     -mean D(generated)

Both kinds of images go through differentiable augmentation. The returned generator is the running average of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.distill.autotune import Execution
from edgekd.distill.checkpoint import Position, started
from edgekd.distill.generative.adam import adversary
from edgekd.distill.generative.diffaugment import changed
from edgekd.distill.generative.discriminator import Discriminator
from edgekd.distill.generative.generator import Generator
from edgekd.distill.trainer import StepIndex, Trainer, TrainerPlan, seed_of
from edgekd.records import Digest
from edgekd.store.records import CurvePoint
from edgekd.tasks._protocol import InputSpec

__all__ = ["GanPlan", "critic_loss", "sample_images", "train_generator"]

_AVERAGE = 0.999
_FASTER = 4.0  # the discriminator's learning rate over the generator's (two time scales: arXiv 1706.08500)
_BATCH = 256


@dataclass(frozen=True)
class GanPlan:
    """Training plan of a generator. ``digest`` distinguishes the checkpoints of different trainings."""

    digest: Digest
    steps: int
    batch_size: int
    latent: int
    width: int
    learning_rate: float
    flip: bool  # mirror real images at random
    seed: int


def train_generator(
    real: Tensor,
    spec: InputSpec,
    plan: GanPlan,
    folder: Path,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator:
    """Train a generator on real images (N, C, H, W) in raw units of any type; returned in eval mode.

    ``progress`` gets steps done, steps in all, and a note. Raises Interrupted on ``stop()``, after writing a checkpoint
    to ``folder``, and Diverged.
    """
    start = started(folder, plan.digest, Position[CurvePoint], Execution)
    training = _GanTraining(real, spec, plan)
    trainer = Trainer(
        training.step,
        {"generator": training.generator_learner, "critic": training.critic_learner},
        TrainerPlan(1, plan.steps, plan.seed, seeded_by="number", of=" of the generator"),
        start,
        diverged=lambda _: (
            "the generator became NaN or infinite",
            f"lower gan.learning_rate (it is {plan.learning_rate:g})",
        ),
        answer=training.generator_learner.answering,
        note=lambda at: f"a generator learns, {at.steps_per_s:.1f} steps/s",
    )
    trainer.run(progress, stop)
    generator = trainer.ending()
    assert isinstance(generator, Generator)
    return generator


def sample_images(generator: Generator, count: int, seed: int) -> Tensor:
    """Generate images (count, C, H, W) in raw units, float32. The first k are the same for any ``count``."""
    noise = torch.randn((count, generator.latent), generator=torch.Generator().manual_seed(seed_of(seed, 2**33)))
    with torch.no_grad():
        return torch.cat([generator(noise[start : start + _BATCH]) for start in range(0, count, _BATCH)])


def critic_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Return the discriminator's hinge loss from scores (N,): 0 if all real are above 1 and all generated below -1."""
    return functional.relu(1 - real).mean() + functional.relu(1 + generated).mean()


class _GanTraining:
    """Generator and discriminator, and one training step of both."""

    def __init__(self, real: Tensor, spec: InputSpec, plan: GanPlan) -> None:
        self.real, self.spec, self.plan = real, spec, plan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(plan.seed, 2**32))  # first weights
            self.generator = Generator(spec, plan.latent, plan.width).train()
            self.critic = Discriminator(spec, plan.width).train()
        self.generator_learner = adversary(self.generator, plan.learning_rate, _AVERAGE)
        self.critic_learner = adversary(self.critic, _FASTER * plan.learning_rate)

    def step(self, at: StepIndex) -> Mapping[str, Tensor]:
        """Do one step of the discriminator, then one of the generator."""
        with torch.no_grad():
            generated = self._scaled(self.generator(self.generator.noise(self.plan.batch_size)))
        loss = critic_loss(self.critic(changed(self._real())), self.critic(changed(generated)))
        self.critic_learner.descend(loss, at.number)
        generated = self._scaled(self.generator(self.generator.noise(self.plan.batch_size)))
        self.generator_learner.descend(-self.critic(changed(generated)).mean(), at.number)
        return {"critic": loss}

    def _real(self) -> Tensor:
        places = torch.randint(0, len(self.real), (self.plan.batch_size,))
        images = self._scaled(self.real.index_select(0, places).float())
        if not self.plan.flip:
            return images
        return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)

    def _scaled(self, raw: Tensor) -> Tensor:
        """Scale from the raw range to -1..1."""
        low, high = self.spec.raw_range
        return (raw - low) * (2.0 / (high - low)) - 1.0
