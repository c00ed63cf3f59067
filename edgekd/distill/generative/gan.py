"""A generator taught by a few real images and a discriminator (Goodfellow et al. 2014; hinge loss: Lim & Ye 2017, arXiv
1705.02894).

    discriminator:  mean max(0, 1 - D(real)) + mean max(0, 1 + D(generated))
    generator:     -mean D(generated)

What both see goes through differentiable changes. The generator handed back is the running average of its weights.
Seeded by (seed, step), so a resumed training ends with the very weights of one never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.average import Average
from edgekd.distill.checkpoint import Position, read_checkpoint, write_checkpoint
from edgekd.distill.generative.adam import Adam
from edgekd.distill.generative.diffaugment import changed
from edgekd.distill.generative.discriminator import Discriminator
from edgekd.distill.generative.generator import Generator
from edgekd.distill.generative.networks import copied, tensors_of
from edgekd.distill.generative.synthesis import seed_of
from edgekd.distill.loop import CHECKPOINT_FILE
from edgekd.distill.probe import Execution
from edgekd.errors import Diverged, Interrupted
from edgekd.records import Digest
from edgekd.tasks._protocol import InputSpec

__all__ = ["Contest", "critic_loss", "drawn", "learn_to_draw"]

_CHECKPOINT_EVERY_S = 20.0
_PROGRESS_EVERY_S = 0.5
_AVERAGE = 0.999
_FASTER = 4.0  # the discriminator's learning rate over the generator's (two time scales: arXiv 1706.08500)
_BATCH = 256


@dataclass(frozen=True)
class Contest:
    """How to train. ``digest`` tells the checkpoints of one training from another's."""

    digest: Digest
    steps: int
    batch_size: int
    latent: int
    width: int
    learning_rate: float
    flip: bool  # whether a mirrored image is a real one
    seed: int


def learn_to_draw(
    real: Tensor,
    spec: InputSpec,
    plan: Contest,
    folder: Path,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator:
    """A generator in eval mode, from real images (N, C, H, W) in raw units of any type.

    ``progress`` gets steps done, steps in all, and a note. Raises Interrupted on ``stop()``, after writing a
    checkpoint to ``folder``, and Diverged.
    """
    with torch.random.fork_rng(devices=[]):
        game = _Game(real, spec, plan, folder)
        begun = told = saved = time.perf_counter()
        first = game.done
        while game.done < plan.steps:
            if stop():
                game.save()
                raise Interrupted(
                    f"stopped after {game.done} of {plan.steps} steps of the generator",
                    "run the same command again: it goes on from here",
                )
            game.step()
            now = time.perf_counter()
            if progress is not None and now - told > _PROGRESS_EVERY_S:
                progress(
                    game.done, plan.steps, f"a generator learns, {(game.done - first) / (now - begun):.1f} steps/s"
                )
                told = now
            if now - saved > _CHECKPOINT_EVERY_S:
                game.save()
                saved = now
        game.check()
    game.average.settle()
    generator = game.average.module
    assert isinstance(generator, Generator)
    return generator


def drawn(generator: Generator, count: int, seed: int) -> Tensor:
    """Images (count, C, H, W) in raw units, float32. The first k are the same whatever ``count`` is."""
    noise = torch.randn((count, generator.latent), generator=torch.Generator().manual_seed(seed_of(seed, 2**33)))
    with torch.no_grad():
        return torch.cat([generator(noise[start : start + _BATCH]) for start in range(0, count, _BATCH)])


def critic_loss(real: Tensor, generated: Tensor) -> Tensor:
    """The discriminator's hinge loss from its scores (N,): 0 where all real are above 1, all generated below -1."""
    return functional.relu(1 - real).mean() + functional.relu(1 + generated).mean()


class _Game:
    """Both networks and where they stand."""

    def __init__(self, real: Tensor, spec: InputSpec, plan: Contest, folder: Path) -> None:
        self.real, self.spec, self.plan, self.path = real, spec, plan, folder / CHECKPOINT_FILE
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed_of(plan.seed, 2**32))  # first weights
        self.generator = Generator(spec, plan.latent, plan.width).train()
        self.critic = Discriminator(spec, plan.width).train()
        self.average = Average(self.generator, _AVERAGE)
        self.drawing = Adam(self.generator, plan.learning_rate)
        self.judging = Adam(self.critic, _FASTER * plan.learning_rate)
        self.done, self.loss = 0, torch.zeros(())
        stored = read_checkpoint(self.path, plan.digest)
        if stored is not None:
            self._restore(*stored)

    def step(self) -> None:
        """One step of the discriminator, then one of the generator."""
        torch.manual_seed(seed_of(self.plan.seed, self.done))
        with torch.no_grad():
            generated = self._scaled(self.generator(self.generator.noise(self.plan.batch_size)))
        self.loss = critic_loss(self.critic(changed(self._real())), self.critic(changed(generated)))
        self.judging.step(self.loss)
        generated = self._scaled(self.generator(self.generator.noise(self.plan.batch_size)))
        self.drawing.step(-self.critic(changed(generated)).mean())
        self.average.update(self.done)
        self.done += 1

    def check(self) -> None:
        """Raises Diverged."""
        finite = (
            torch.isfinite(self.loss) & torch.stack([p.isfinite().all() for p in self.generator.parameters()]).all()
        )
        if not bool(finite):
            raise Diverged(
                f"the generator became NaN or infinite within {self.done} steps",
                f"lower gan.learning_rate (it is {self.plan.learning_rate:g})",
            )

    def save(self) -> None:
        """Write the checkpoint."""
        self.check()
        tensors = tensors_of(self._networks())
        tensors |= {f"drawing.{name}": value for name, value in self.drawing.state().items()}
        tensors |= {f"judging.{name}": value for name, value in self.judging.state().items()}
        position = Position(plan=self.plan.digest, execution=Execution(), step=self.done)
        write_checkpoint(self.path, position, {name: tensor.clone() for name, tensor in tensors.items()})

    def _restore(self, position: Position, tensors: dict[str, Tensor]) -> None:
        copied(tensors, self._networks())
        for name, adam in (("drawing.", self.drawing), ("judging.", self.judging)):
            adam.restore({key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)})
        self.done = position.step

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "average": self.average.module}

    def _real(self) -> Tensor:
        places = torch.randint(0, len(self.real), (self.plan.batch_size,))
        images = self._scaled(self.real.index_select(0, places).float())
        if not self.plan.flip:
            return images
        return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)

    def _scaled(self, raw: Tensor) -> Tensor:
        """From the raw range to -1..1."""
        low, high = self.spec.raw_range
        return (raw - low) * (2.0 / (high - low)) - 1.0
