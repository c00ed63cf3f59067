"""Training loop of every kind of training: epochs, seeds, checkpoints, resumption, interruption, divergence, progress.

A training supplies a step and its named state. Contract: the state has everything that a step changes, and all random
numbers come from torch's global generator or from generators seeded with the step's index. A training that was
interrupted or killed then ends with exactly the weights of an uninterrupted one: the trainer seeds each step anew, and
its checkpoint has the whole state. One that ends early, because its time is up, is the exception: the clock decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.autotune import laid_out
from edgekd.distill.checkpoint import P, Start, write_checkpoint
from edgekd.distill.learner import Learner, tensors_of
from edgekd.distill.malloc_settings import kept_memory
from edgekd.errors import Diverged, Interrupted
from edgekd.tasks._protocol import Score
from edgekd.tasks.mapped import release

__all__ = ["Epoch", "Stateful", "StepIndex", "Trainer", "TrainerPlan", "seed_of", "training_device"]

_CPU = torch.device("cpu")
_PROGRESS_EVERY_S = 0.5
_VALIDATIONS = 40  # at most, and always at the end
_BY_CHANCE = 0.05  # of the trainings that gain nothing: the share that may end with an epoch all the same

Report = Callable[[int, int, str], None]
"""Progress callback: steps done, steps in all, and a note."""


class Stateful(Protocol):
    """Part of a training's state, such as a `Learner`."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the tensors that a checkpoint must contain, by name; the order is free."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from a checkpoint's tensors, which are on the CPU."""
        ...


@dataclass(frozen=True)
class TrainerPlan:
    """Length, seed and checkpoint interval of a training."""

    epochs: int
    steps: int  # in an epoch
    seed: int
    seeded_by: Literal["epoch", "number"] = "epoch"  # a step's seed: of epoch and step, or of the step's number alone
    keep_best: bool = False  # end with the best of start and epochs by validation, not with the last epoch
    keeps_start: bool = False  # with ``keep_best``: the start is the best unless an epoch beats it beyond chance
    checkpoint_every_s: float = 20.0  # within an epoch; at its end there is always one
    of: str = ""  # what is trained, for messages: " of the generator"


@dataclass(frozen=True)
class StepIndex:
    """Index of a step, counted from 0, and its random seed."""

    epoch: int
    step: int  # within the epoch
    number: int  # within the training
    seed: int


@dataclass(frozen=True)
class Epoch:
    """Result of a finished epoch."""

    number: int  # from 0
    losses: Mapping[str, float]  # summed over the steps
    score: float | None  # by validation, where it was due
    seconds: float  # with validation


@dataclass(frozen=True)
class Progress(Generic[P]):
    """Progress of a running training."""

    number: int  # steps done
    points: Sequence[P]  # of the epochs done
    steps_per_s: float


class Trainer(Generic[P]):
    """Trains from ``start`` to the end of the plan.

    ``step`` does one step and returns the losses to be summed over the epoch, each a tensor of one value, on any
    device; nothing waits for it. ``state`` is everything that steps change, by name: a tensor is restored in place.
    ``diverged`` gives problem and remedy once a loss or a weight is NaN or infinite. Optional: ``begin`` an epoch, at
    its first step or where it is resumed; ``close`` it with its point, after which ``publish`` gets all points;
    ``answer`` gives the module to ``validate`` and to return; ``note`` describes progress.
    """

    def __init__(
        self,
        step: Callable[[StepIndex], Mapping[str, Tensor]],
        state: Mapping[str, Stateful | Tensor],
        plan: TrainerPlan,
        start: Start[P],
        *,
        diverged: Callable[[int], tuple[str, str]],
        begin: Callable[[int], None] = lambda _: None,
        close: Callable[[Epoch], P] | None = None,
        publish: Callable[[Sequence[P]], None] = lambda _: None,
        answer: Callable[[], nn.Module] = nn.Identity,
        validate: Callable[[nn.Module], Score] | None = None,
        note: Callable[[Progress[P]], str] = lambda _: "",
        device: torch.device = _CPU,
    ) -> None:
        self.plan, self.path, self.position, self.device = plan, start.path, start.position, device
        self._step, self._state, self._diverged = step, state, diverged
        self._begin, self._close, self._publish = begin, close, publish
        self._answer, self._validate, self._note = answer, validate, note
        self._losses: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._validated = False  # whether the epoch before was
        if start.tensors is None:  # before anything else: a killed training has to go on in the layout it began in
            self._save(0, 0.0)
        else:
            self._restore(start.tensors)
        self._publish(self.position.points)

    def run(
        self,
        progress: Report | None = None,
        stop: Callable[[], bool] = lambda: False,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end; with ``keep_best`` to the next validated epoch's end once it is ``late()``.

        Raises Interrupted on ``stop()``, after writing a checkpoint, and Diverged.
        """
        cuda = range(torch.cuda.device_count()) if self.device.type == "cuda" else []
        with self.position.execution.on_threads(), kept_memory(), torch.random.fork_rng(devices=cuda):
            if self._validate is not None and self.plan.keep_best and self.position.best is None:
                scored = self._validate(self._answer())
                self._keep(scored)
                self.position = self.position.but(start=scored if self.plan.keeps_start else None)
            while self.position.epoch < self.plan.epochs:
                if self.plan.keep_best and self._validated and late():
                    break
                self._run_epoch(progress, stop)
                self._close_epoch()

    @torch.no_grad()
    def ending(self) -> nn.Module:
        """Return the trained module, in eval mode on the CPU.

        In the contiguous layout, so that its outputs are bit-identical to those of the module read from a file.
        """
        answering = self._answer()
        for name, tensor in tensors_of(answering).items() if self._best else ():
            tensor.copy_(self._best[name])
        return laid_out(answering, _CPU, torch.contiguous_format).eval()

    def _run_epoch(self, progress: Report | None, stop: Callable[[], bool]) -> None:
        epoch, first, before, plan = self.position.epoch, self.position.step, self.position.seconds, self.plan
        done, total = epoch * plan.steps, plan.epochs * plan.steps
        self._begin(epoch)
        begun = reported = saved = time.perf_counter()
        for step in range(first, plan.steps):
            if stop():
                self._save(step, before + time.perf_counter() - begun)
                raise Interrupted(self._stopped(epoch, step), "run the same command again: it goes on from here")
            seed = (epoch, step + 1) if plan.seeded_by == "epoch" else (done + step,)
            at = StepIndex(epoch, step, done + step, seed_of(plan.seed, *seed))
            torch.manual_seed(at.seed)
            self._add(self._step(at))
            release()
            now = time.perf_counter()
            if progress is not None and now - reported > _PROGRESS_EVERY_S:
                speed = (step + 1 - first) / (now - begun)
                progress(at.number + 1, total, self._note(Progress(at.number + 1, self.position.points, speed)))
                reported = now
            if now - saved > plan.checkpoint_every_s and step + 1 < plan.steps:
                self._save(step + 1, before + now - begun)
                saved = now
        self._check()  # waits for the device, so that the time is all of it
        seconds = before + time.perf_counter() - begun
        self.position = self.position.but(step=plan.steps, seconds=seconds)
        if progress is not None:
            done += plan.steps
            progress(done, total, self._note(Progress(done, self.position.points, plan.steps / max(seconds, 1e-9))))

    def _close_epoch(self) -> None:
        """Validate, add the point, write the checkpoint."""
        epoch, plan = self.position.epoch, self.plan
        begun = time.perf_counter()
        every = max(1, math.ceil(plan.epochs / _VALIDATIONS))
        due = (epoch + 1) % every == 0 or epoch + 1 == plan.epochs
        scored = self._validate(self._answer()) if self._validate is not None and due else None
        self._validated = scored is not None
        if scored is not None and self._improves(scored, math.ceil(plan.epochs / every)):
            self._keep(scored)
        points = self.position.points
        if self._close is not None:
            seconds = self.position.seconds + time.perf_counter() - begun
            losses = {name: float(value) for name, value in self._losses.items()}
            score = None if scored is None else scored.value
            points = (*points, self._close(Epoch(epoch, losses, score, seconds)))
        self._losses = {}
        self.position = self.position.but(epoch=epoch + 1, points=points)
        self._save(0, 0.0)
        self._publish(points)

    def _add(self, losses: Mapping[str, Tensor]) -> None:
        for name, value in losses.items():
            if name not in self._losses:
                self._losses[name] = torch.zeros((), device=value.device, dtype=torch.float64)
            self._losses[name] += value.detach()

    def _improves(self, scored: Score, validations: int) -> bool:
        """Tell whether an epoch replaces the best so far; with a start to beat, beyond chance among ``validations``."""
        best, start = self.position.best, self.position.start
        better = best is not None and scored.value >= best
        return better and (start is None or scored.beats(start, _BY_CHANCE / validations))

    def _keep(self, scored: Score) -> None:
        """Store the current weights as the best so far."""
        self._best = {name: tensor.clone() for name, tensor in tensors_of(self._answer()).items()}
        self.position = self.position.but(best=scored.value)

    def _check(self) -> None:
        learners = [part for part in self._state.values() if isinstance(part, Learner)]
        finite = all(math.isfinite(float(value)) for value in self._losses.values())
        if not finite or not all(learner.finite() for learner in learners):
            raise Diverged(*self._diverged(self.position.epoch))

    def _stopped(self, epoch: int, step: int) -> str:
        plan = self.plan
        alone = f"stopped after {step} of {plan.steps} steps{plan.of}"
        return f"stopped in epoch {epoch + 1} of {plan.epochs}{plan.of}" if plan.epochs > 1 else alone

    def _save(self, step: int, seconds: float) -> None:
        self._check()
        self.position = self.position.but(step=step, seconds=seconds)
        tensors = {f"losses.{name}": value for name, value in self._losses.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for name, part in self._state.items():
            if isinstance(part, Tensor):
                tensors[f"state.{name}."] = part
            else:
                tensors |= {f"state.{name}.{key}": value for key, value in part.tensors().items()}
        write_checkpoint(self.path, self.position, tensors)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}

        self._losses = {name: value.to(self.device) for name, value in under("losses.").items()}
        self._best = {name: value.to(self.device) for name, value in under("best.").items()}
        for name, part in self._state.items():
            kept = under(f"state.{name}.")
            if isinstance(part, Tensor):
                part.copy_(kept[""])
            else:
                part.restore(kept)


def seed_of(*numbers: int) -> int:
    """Derive a seed for torch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    from accelerate import Accelerator  # a second to import

    device: torch.device = Accelerator().device
    return device
