"""Differentiable search: trains a supernet and its choice probabilities, weights on most samples, choices on the
others.

Weights use the recipe's own losses, optimizer and augmentations. After a warm-up with fixed choices, each step of the
weights is followed by one of the choices (as in DARTS, Liu et al. 2019, and ProxylessNAS, Cai et al. 2019, both first
order), with Adam, on

    task loss + sum over costs of [m g + 4 g^2 + pull x E],   g = log E,

where E is a cost's expectation over its bound. The multiplier m grows while E is above 1 and shrinks while it is below
(augmented Lagrangian), so that no penalty weight has to be tuned; far from the bound it does not change, since what it
accumulates there would carry the choice past the bound. For a cost to be *spent*, such as a latency budget, both sides
count, as in TuNAS (Bender et al. 2020, arXiv 2008.06120, the absolute reward): what is left of it could have been
accuracy, and a one-sided penalty stops wherever annealing happens to. For a cost to be *kept*, only an excess counts,
and m is never negative.

The choices begin with the highest entropy that spends the budget (`Choices.lean`), so that weights are trained as they
will be used. The temperature stays at 1 for a while, in which costs and accuracy are traded, then decreases
exponentially until one arch has all the probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.distill.autotune import Execution, laid_out
from edgekd.distill.checkpoint import Position, started
from edgekd.distill.inputs import Normalisation
from edgekd.distill.learner import Learner, sgd
from edgekd.distill.loop import Plan, TrainingData, batches_of
from edgekd.distill.losses.combined import Combined
from edgekd.distill.schedule import learning_rate
from edgekd.distill.trainer import Epoch, Progress, StepIndex, Trainer, TrainerPlan, seed_of, training_device
from edgekd.store.differentiable import SupernetPoint
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.students.supernet.block_costs import Cost
from edgekd.students.supernet.choices import Choices, expected
from edgekd.tasks.mapped import release

__all__ = ["CostBound", "train_supernet"]

_GAIN = 20.0  # growth of a multiplier if a cost is e times its bound throughout
_STIFFNESS, _NEAR = 4.0, 0.25
_HELD = 0.4  # share of the steps after the warm-up before annealing begins
_BETAS = (0.5, 0.99)


@dataclass(frozen=True)
class CostBound:
    """Bounded cost in the loss. ``cost`` is a share of its bound: 1 is the bound."""

    name: str
    cost: Cost
    how: Literal["spend", "keep", "pull"]  # come to the bound; stay below it; only the less the better
    pull: float = 0.0


@dataclass(frozen=True)
class _Teaching:
    """Inputs of the training."""

    data: TrainingData
    loss: Combined
    plan: Plan
    options: DifferentiableOptions
    bounds: Sequence[CostBound]
    execution: Execution
    device: torch.device


def train_supernet(
    network: nn.Module,
    choices: Choices,
    data: TrainingData,
    loss: Combined,
    plan: Plan,
    options: DifferentiableOptions,
    bounds: Sequence[CostBound],
    folder: Path,
    execution: Execution,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> tuple[SupernetPoint, ...]:
    """Train ``network`` (a `Supernet`) and ``choices`` in place, resuming from a checkpoint of the same plan.

    ``device`` defaults to the accelerator if there is one; both end on the CPU. ``plan.epochs`` is the length. The
    weights stay in the checkpoint in ``folder``. Raises Interrupted on ``stop()``, after writing a checkpoint, and
    Diverged.
    """
    start = started(folder, plan.digest, Position[SupernetPoint], lambda: execution)
    execution, device = start.position.execution, device or training_device()
    run = _SupernetTraining(network, choices, _Teaching(data, loss, plan, options, bounds, execution, device))
    if start.tensors is None:
        choices.lean([bound.cost for bound in bounds if bound.how == "spend"])
    trainer = Trainer(
        run.step,
        {"network": run.network, "choices": run.choice, "multipliers": run.multipliers},
        TrainerPlan(plan.epochs, run.steps, plan.seed, of=" of the supernet"),
        start,
        diverged=run.diagnosis,
        begin=run.begin,
        close=run.close,
        note=run.note,
        device=device,
    )
    trainer.run(progress, stop)
    laid_out(network, torch.device("cpu"), torch.contiguous_format).eval()
    choices.to("cpu")
    return trainer.position.points


class _SupernetTraining:
    """Learners of weights and choices, and one step of both."""

    def __init__(self, network: nn.Module, choices: Choices, teaching: _Teaching) -> None:
        self.teaching, plan, device = teaching, teaching.plan, teaching.device
        count = len(teaching.data.labels)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(plan.seed, 0, 0)))
        held = min(count - 2, max(2, round(teaching.options.hold_out * count)))
        self.held_out, self.learnt = order[:held], order[held:]
        self.steps = max(1, math.ceil(len(self.learnt) / plan.batch_size))
        total, warmup = self.steps * plan.epochs, round(plan.warmup_epochs * self.steps)
        self.total, self.warmup = total, min(round(teaching.options.warmup * total), total - 1)
        laid_out(network, device, teaching.execution.memory_format)
        self.network = Learner(
            network,
            sgd(network, plan),
            lambda number: learning_rate(number, total, warmup, plan.learning_rate, plan.schedule),
            clip=plan.clip,
        )
        self.choices, moving = choices.to(device), total - self.warmup
        rate, self.gain = teaching.options.travel / moving, _GAIN / moving
        self.choice = Learner(choices, torch.optim.Adam(choices.parameters(), lr=rate, betas=_BETAS))
        self.normalise = Normalisation(teaching.data.spec, device)
        self.multipliers = torch.zeros(len(teaching.bounds), dtype=torch.float64)  # 0 where a bound only pulls
        self.learning: Sequence[Tensor] = ()  # this epoch's batches of the weights
        self.choosing: Sequence[Tensor] = ()  # those of the choice

    def begin(self, epoch: int) -> None:
        """Draw the epoch's batches."""
        generator = torch.Generator().manual_seed(seed_of(self.teaching.plan.seed, epoch, 0))
        learnt = self.learnt[torch.randperm(len(self.learnt), generator=generator)]
        held = self.held_out[torch.randperm(len(self.held_out), generator=generator)]
        count = max(1, len(held) // self.teaching.plan.batch_size)
        self.learning = batches_of(learnt, self.steps, self.teaching.device)
        self.choosing = batches_of(held, count, self.teaching.device)
        self.network.module.train()

    def step(self, at: StepIndex) -> Mapping[str, Tensor]:
        """Do one step of the weights, and after the warm-up one of the choices."""
        generator, batch = torch.Generator().manual_seed(at.seed), self.learning[at.step]
        with torch.no_grad():
            picks = self.choices.sampled(self._temperature(at.number), generator)
        value = self._loss(batch, at, picks)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self.network.update(at.number)
        losses = {"loss": value.detach().double() * len(batch)}
        if at.number >= self.warmup:
            held = self.choosing[at.step % len(self.choosing)]
            losses["held out"] = self._choose(held, at, generator).double() * len(held)
        return losses

    def _choose(self, batch: Tensor, at: StepIndex, generator: torch.Generator) -> Tensor:
        temperature = self._temperature(at.number)
        value = self._loss(batch, at, self.choices.sampled(temperature, generator))
        probabilities, total = self.choices.probabilities(temperature), value
        for place, bound in enumerate(self.teaching.bounds):
            share = expected(bound.cost, probabilities)
            total = total + bound.pull * share
            if bound.how == "pull":
                continue
            over, multiplier = share.log(), float(self.multipliers[place])
            counted = over if bound.how == "spend" else over.clamp_min(0.0)
            total = total + multiplier * over + _STIFFNESS * counted.square()
            gone = float(over.detach())
            multiplier += self.gain * gone if abs(gone) < _NEAR else 0.0
            self.multipliers[place] = multiplier if bound.how == "spend" else max(0.0, multiplier)
        self.choice.descend(total, at.number)
        return value.detach()

    def _loss(self, batch: Tensor, at: StepIndex, picks: Mapping[str, Tensor]) -> Tensor:
        data, execution = self.teaching.data, self.teaching.execution
        view = at.epoch % len(data.view_seeds)
        assert isinstance(data.labels, Tensor), "a supernet has one classification head"
        if data.view is None:
            raw, labels = data.inputs.index_select(0, batch), data.labels.index_select(0, batch)
        else:
            seed = data.view_seeds[view]
            raw = data.view(data.inputs, batch.numpy(), seed)
            labels = data.view.targets(data.labels, batch.numpy(), seed, data.classes)
        inputs = self.normalise(raw, execution.memory_format if raw.ndim == 4 else None)
        teacher_logits = None
        if data.teacher is not None:
            teacher_logits = data.teacher(view, batch, raw)[0].to(self.teaching.device)
        with torch.autocast(self.teaching.device.type, torch.bfloat16, execution.precision == "bfloat16"):
            logits = self.network.module(inputs, picks)
        release()
        now = self.teaching.loss.at(at.number / max(1, self.total - 1))
        return torch.stack(now.terms(logits.float(), teacher_logits, labels.to(self.teaching.device))).sum()

    def _temperature(self, number: int) -> float:
        """Return 1 in the warm-up and for a while after it, then an exponential decrease to the end temperature."""
        done = max(0, number - self.warmup) / max(1, self.total - self.warmup - 1)
        return float(self.teaching.options.end_temperature ** (max(0.0, done - _HELD) / (1.0 - _HELD)))

    def note(self, at: Progress[SupernetPoint]) -> str:
        """Format entropy, costs and speed."""
        shares, bits = self._shares(at.number - 1)
        costs = ", ".join(f"{name} {share:.0%} of its bound" for name, share in shares.items())
        return f"{bits:.1f} bits open, {costs}, {at.steps_per_s * len(self.learnt) / self.steps:,.0f} samples/s"

    def _shares(self, number: int) -> tuple[dict[str, float], float]:
        temperature = self._temperature(number)
        with torch.no_grad():
            probabilities = self.choices.probabilities(temperature)
            shares = {bound.name: float(expected(bound.cost, probabilities)) for bound in self.teaching.bounds}
        return shares, self.choices.open_bits(temperature)

    def close(self, epoch: Epoch) -> SupernetPoint:
        """Return the epoch's point."""
        last = (epoch.number + 1) * self.steps - 1
        moved, held = max(0, min(self.steps, last + 1 - self.warmup)), epoch.losses.get("held out")
        shares, bits = self._shares(last)
        return SupernetPoint(
            epoch=epoch.number,
            loss=epoch.losses["loss"] / sum(map(len, self.learning)),
            held_out_loss=None if held is None else held / moved / (sum(map(len, self.choosing)) / len(self.choosing)),
            temperature=self._temperature(last),
            open_bits=bits,
            shares=shares,
            multipliers={
                bound.name: float(multiplier)
                for bound, multiplier in zip(self.teaching.bounds, self.multipliers, strict=True)
                if bound.how != "pull"
            },
            mode=self.choices.mode(),
            images_per_s=len(self.learnt) / max(epoch.seconds, 1e-9),
        )

    def diagnosis(self, epoch: int) -> tuple[str, str]:
        """Return problem and remedy of a divergence."""
        return (
            f"the loss of the supernet became NaN or infinite in epoch {epoch + 1}",
            f"lower learning_rate (it is {self.teaching.plan.learning_rate:g})",
        )
