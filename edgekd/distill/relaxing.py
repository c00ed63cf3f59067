"""Trains a relaxed network and the choice of an arch in it: weights on most samples, the choice on the others.

Weights take the recipe's own losses, optimizer and views. After a warm-up in which the choice stands still, each step
of the weights is followed by one of the choice (as in DARTS, Liu et al. 2019, and ProxylessNAS, Cai et al. 2019, both
of first order), with Adam, on

    task loss + sum over costs of [m g + 4 g^2 + pull x E],   g = log E,

where E is a cost's expectation over its bound. The multiplier m grows while E is above 1 and shrinks while it is below
(an augmented Lagrangian), so that no weight of the penalty has to be found by trying; far from the bound it waits, for
what it gathers there would carry the choice past it. Of a cost that is to be *spent*, such as a budget of latency, both
sides count, as in TuNAS (Bender et al. 2020, arXiv 2008.06120, the absolute reward): what is left of it could have been
accuracy, and a one-sided penalty stops wherever annealing happens to. Of one that is to be *kept*, only an excess does,
and m is never below zero.

The choice begins as the most open one that spends the budget (`Choices.lean`), so that weights are trained as they
will be used. The temperature stays at 1 for a while, in which costs and accuracy are traded, then goes down
exponentially until one arch has all the probability. Everything random is seeded by (seed, epoch, step): a resumed
training ends with the very same choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.distill.inputs import Normalisation
from edgekd.distill.loop import Lesson, Plan, batches_of, optimizer_of, seed_of_step
from edgekd.distill.losses.combined import Combined
from edgekd.distill.memory import kept_memory
from edgekd.distill.probe import Execution, laid_out
from edgekd.distill.relaxed_checkpoint import RelaxPosition, read_position, restore, write_position
from edgekd.distill.schedule import learning_rate
from edgekd.errors import Diverged, Interrupted
from edgekd.store.relax_options import RelaxOptions
from edgekd.store.relaxed import RelaxPoint
from edgekd.students.choices import Choices, expected
from edgekd.students.pieces import Cost
from edgekd.tasks.mapped import release

__all__ = ["RELAXED_FILE", "Bound", "relax"]

RELAXED_FILE = "relaxed.safetensors"
_CHECKPOINT_EVERY_S = 20.0
_PROGRESS_EVERY_S = 0.5
_GAIN = 20.0  # what a multiplier gains where a cost is e times its bound all along
_STIFFNESS, _NEAR = 4.0, 0.25
_HELD = 0.4  # share of the steps after the warm-up in which nothing is annealed
_BETAS = (0.5, 0.99)


@dataclass(frozen=True)
class Bound:
    """A cost in the loss. ``cost`` is as a share of its bound: 1 where it is used up."""

    name: str
    cost: Cost
    how: Literal["spend", "keep", "pull"]  # come to the bound; stay below it; only the less the better
    pull: float = 0.0


@dataclass(frozen=True)
class _Teaching:
    """What the training rests on."""

    lesson: Lesson
    loss: Combined
    plan: Plan
    options: RelaxOptions
    bounds: Sequence[Bound]
    execution: Execution
    folder: Path
    device: torch.device


def relax(
    network: nn.Module,
    choices: Choices,
    lesson: Lesson,
    loss: Combined,
    plan: Plan,
    options: RelaxOptions,
    bounds: Sequence[Bound],
    folder: Path,
    execution: Execution,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> tuple[RelaxPoint, ...]:
    """Train ``network`` (a `Relaxed`) and ``choices`` themselves, going on from a checkpoint of the same plan.

    ``plan.epochs`` counts. The weights are left in ``folder`` under `RELAXED_FILE`. Raises Interrupted on ``stop()``,
    after writing a checkpoint, and Diverged.
    """
    teaching = _Teaching(lesson, loss, plan, options, bounds, execution, folder, device or torch.device("cpu"))
    run = _Relaxing(network, choices, teaching)
    with run.execution.on_threads(), kept_memory(), torch.random.fork_rng(devices=[]):
        while run.position.epoch < plan.epochs:
            run.epoch(progress, stop)
    laid_out(network, torch.device("cpu"), torch.contiguous_format).eval()
    return run.position.points


@dataclass
class _Steps:
    """The samples of one epoch, batch by batch."""

    weights: Sequence[Tensor]
    choice: Sequence[Tensor]
    view: int
    begun: float = field(default_factory=time.perf_counter)


class _Relaxing:
    def __init__(self, network: nn.Module, choices: Choices, teaching: _Teaching) -> None:
        self.teaching = teaching
        self.folder, self.path = teaching.folder, teaching.folder / RELAXED_FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = read_position(self.path, teaching.plan.digest)
        position = RelaxPosition(plan=teaching.plan.digest, execution=teaching.execution)
        self.position = position if stored is None else stored[0]
        self.execution = self.position.execution
        self.network = laid_out(network, teaching.device, self.execution.memory_format)
        self.choices = choices.to(teaching.device)
        self.optimizer = optimizer_of(self.network, teaching.plan)
        count = len(teaching.lesson.labels)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_of_step(teaching.plan.seed, 0, 0)))
        held = min(count - 2, max(2, round(teaching.options.hold_out * count)))
        self.held_out, self.learnt = order[:held], order[held:]
        self.steps = max(1, math.ceil(len(self.learnt) / teaching.plan.batch_size))
        self.warmup = min(round(teaching.options.warmup * teaching.plan.epochs * self.steps), self._total() - 1)
        moving = self._total() - self.warmup
        self.gain = _GAIN / moving
        logits = list(self.choices.parameters())
        self.adam = torch.optim.Adam(logits, lr=teaching.options.travel / moving, betas=_BETAS)
        self.normalise = Normalisation(teaching.lesson.spec, teaching.device)
        self.multipliers = {bound.name: 0.0 for bound in teaching.bounds if bound.how != "pull"}
        if stored is None:
            self.choices.lean([bound.cost for bound in teaching.bounds if bound.how == "spend"])
        else:
            self.multipliers.update(self.position.multipliers)
            restore(stored[1], self._parts())

    def epoch(self, progress: Callable[[int, int, str], None], stop: Callable[[], bool]) -> None:
        """Every step that is left of it, then its point and a checkpoint."""
        teaching, position = self.teaching, self.position
        epoch, steps = position.epoch, self._batches(position.epoch)
        sums, told, saved = list(position.sums), steps.begun, steps.begun
        self.network.train()
        done = 0
        for step in range(position.step, self.steps):
            if stop():
                self._save(step, sums, position.seconds + time.perf_counter() - steps.begun)
                raise Interrupted(
                    f"stopped in epoch {epoch + 1} of {teaching.plan.epochs} of the relaxed network",
                    "run the same command again: it goes on from here",
                )
            number = epoch * self.steps + step
            generator = torch.Generator().manual_seed(seed_of_step(teaching.plan.seed, epoch, step + 1))
            torch.manual_seed(seed_of_step(teaching.plan.seed, epoch, step + 1))
            sums[0] += self._weights_step(steps.weights[step], steps.view, number, generator)
            if number >= self.warmup:
                sums[1] += self._choice_step(steps.choice[step % len(steps.choice)], steps.view, number, generator)
            done += len(steps.weights[step])
            now = time.perf_counter()
            if now - told > _PROGRESS_EVERY_S:
                progress(number + 1, self._total(), self._note(number, done / (now - steps.begun)))
                told = now
            if now - saved > _CHECKPOINT_EVERY_S and step + 1 < self.steps:
                self._save(step + 1, sums, position.seconds + now - steps.begun)
                saved = now
        seconds = position.seconds + time.perf_counter() - steps.begun
        self._close(sums, seconds)
        last = (epoch + 1) * self.steps
        progress(last, self._total(), self._note(last - 1, len(self.learnt) / max(1e-9, seconds)))

    def _weights_step(self, batch: Tensor, view: int, number: int, generator: torch.Generator) -> float:
        plan = self.teaching.plan
        with torch.no_grad():
            picks = self.choices.sampled(self._temperature(number), generator)
        value = self._loss(batch, view, number, picks)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        rate = learning_rate(number, self._total(), round(plan.warmup_epochs * self.steps), plan.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(value.detach()) * len(batch)

    def _choice_step(self, batch: Tensor, view: int, number: int, generator: torch.Generator) -> float:
        temperature = self._temperature(number)
        value = self._loss(batch, view, number, self.choices.sampled(temperature, generator))
        probabilities, total = self.choices.probabilities(temperature), value
        for bound in self.teaching.bounds:
            share = expected(bound.cost, probabilities)
            total = total + bound.pull * share
            if bound.how == "pull":
                continue
            over, multiplier = share.log(), self.multipliers[bound.name]
            counted = over if bound.how == "spend" else over.clamp_min(0.0)
            total = total + multiplier * over + _STIFFNESS * counted.square()
            gone = float(over.detach())
            multiplier += self.gain * gone if abs(gone) < _NEAR else 0.0
            self.multipliers[bound.name] = multiplier if bound.how == "spend" else max(0.0, multiplier)
        logits = list(self.choices.parameters())
        for parameter, gradient in zip(logits, torch.autograd.grad(total, logits, allow_unused=True), strict=True):
            parameter.grad = gradient
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return float(value.detach()) * len(batch)

    def _loss(self, batch: Tensor, view: int, number: int, picks: Mapping[str, Tensor]) -> Tensor:
        lesson = self.teaching.lesson
        assert isinstance(lesson.labels, Tensor), "a family relaxes for one classification head alone"
        if lesson.view is None:
            raw, labels = lesson.inputs.index_select(0, batch), lesson.labels.index_select(0, batch)
        else:
            seed = lesson.view_seeds[view]
            raw = lesson.view(lesson.inputs, batch.numpy(), seed)
            labels = lesson.view.targets(lesson.labels, batch.numpy(), seed, lesson.classes)
        inputs = self.normalise(raw, self.execution.memory_format if raw.ndim == 4 else None)
        taught = None
        if lesson.answers is not None:
            taught = lesson.answers(view, batch, raw)[0].to(self.teaching.device)
        with torch.autocast(self.teaching.device.type, torch.bfloat16, self.execution.precision == "bfloat16"):
            logits = self.network(inputs, picks)
        release()
        at = self.teaching.loss.at(number / max(1, self._total() - 1))
        return torch.stack(at.terms(logits.float(), taught, labels.to(self.teaching.device))).sum()

    def _batches(self, epoch: int) -> _Steps:
        generator = torch.Generator().manual_seed(seed_of_step(self.teaching.plan.seed, epoch, 0))
        learnt = self.learnt[torch.randperm(len(self.learnt), generator=generator)]
        held = self.held_out[torch.randperm(len(self.held_out), generator=generator)]
        count = max(1, len(held) // self.teaching.plan.batch_size)
        device = self.teaching.device
        return _Steps(
            batches_of(learnt, self.steps, device),
            batches_of(held, count, device),
            epoch % len(self.teaching.lesson.view_seeds),
        )

    def _temperature(self, number: int) -> float:
        """1 in the warm-up and for a while, then down to the end's exponentially."""
        done = max(0, number - self.warmup) / max(1, self._total() - self.warmup - 1)
        return float(self.teaching.options.end_temperature ** (max(0.0, done - _HELD) / (1.0 - _HELD)))

    def _total(self) -> int:
        return self.steps * self.teaching.plan.epochs

    def _note(self, number: int, images_per_s: float) -> str:
        shares, bits = self._shares(number)
        costs = ", ".join(f"{name} {share:.0%} of its bound" for name, share in shares.items())
        return f"{bits:.1f} bits open, {costs}, {images_per_s:,.0f} images/s"

    def _shares(self, number: int) -> tuple[dict[str, float], float]:
        temperature = self._temperature(number)
        with torch.no_grad():
            probabilities = self.choices.probabilities(temperature)
            shares = {bound.name: float(expected(bound.cost, probabilities)) for bound in self.teaching.bounds}
        return shares, self.choices.open_bits(temperature)

    def _close(self, sums: Sequence[float], seconds: float) -> None:
        epoch = self.position.epoch
        last = (epoch + 1) * self.steps - 1
        moved = max(0, min(self.steps, last + 1 - self.warmup))
        held = sums[1] / moved / (len(self.held_out) / max(1, len(self._batches(epoch).choice))) if moved else None
        loss = sums[0] / len(self.learnt)
        if not math.isfinite(loss) or (held is not None and not math.isfinite(held)):
            rate = self.teaching.plan.learning_rate
            raise Diverged(
                f"the loss of the relaxed network became NaN or infinite in epoch {epoch + 1}",
                f"lower learning_rate (it is {rate:g})",
            )
        shares, bits = self._shares(last)
        point = RelaxPoint(
            epoch=epoch,
            loss=loss,
            held_out_loss=held,
            temperature=self._temperature(last),
            open_bits=bits,
            shares=shares,
            multipliers=dict(self.multipliers),
            mode=self.choices.mode(),
            images_per_s=len(self.learnt) / max(seconds, 1e-9),
        )
        points = (*self.position.points, point)
        self.position = self.position.but(epoch=epoch + 1, points=points)
        self._save(0, (0.0, 0.0), 0.0)

    def _save(self, step: int, sums: Sequence[float], seconds: float) -> None:
        self.position = self.position.but(
            step=step, sums=tuple(sums), seconds=seconds, multipliers=dict(self.multipliers)
        )
        write_position(self.path, self.position, self._parts())

    def _parts(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        return {"network": (self.network, self.optimizer), "choices": (self.choices, self.adam)}
