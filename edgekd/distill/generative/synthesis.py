"""A generator and a student, turn by turn, with a frozen teacher between them. Knows neither tasks nor recipes.

A round: one step of the generator on fresh noise; its images go to the bank; then some steps of the student on images
of the bank (without one: on fresh images), as the teacher sees them. Everything random is seeded by (seed, round), so
a resumed training ends with the very weights of one never interrupted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.average import Average
from edgekd.distill.checkpoint import Position, read_checkpoint, write_checkpoint
from edgekd.distill.curve import write_curve
from edgekd.distill.generative.adam import Adam
from edgekd.distill.generative.bank import Bank, to_bytes, to_raw
from edgekd.distill.generative.generator import Generator
from edgekd.distill.generative.networks import copied, tensors_of
from edgekd.distill.generative.objective import Objective
from edgekd.distill.generative.statistics import Observed
from edgekd.distill.inputs import Normalisation
from edgekd.distill.loop import CHECKPOINT_FILE, batches_of, optimizer_of
from edgekd.distill.memory import kept_memory
from edgekd.distill.probe import Precision, laid_out, probe
from edgekd.distill.schedule import learning_rate
from edgekd.errors import Diverged, Interrupted
from edgekd.records import Digest
from edgekd.store.records import CurvePoint
from edgekd.tasks._protocol import InputSpec
from edgekd.teachers._protocol import OpenTeacher, View

__all__ = ["Invented", "LossAt", "Rounds", "StudentLoss", "invent", "seed_of"]

StudentLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A scalar from the student's logits (N, C), the teacher's (N, C) and the teacher's first choices (N,) int64."""

LossAt = Callable[[float], StudentLoss]
"""The loss as it is when a share (0 to 1) of the training is done."""


_CHECKPOINT_EVERY_S = 60.0  # a bank makes checkpoints large
_PROGRESS_EVERY_S = 0.5
_SHOWN = 64


@dataclass(frozen=True)
class Rounds:
    """How to train. ``digest`` tells the checkpoints of one training from another's."""

    digest: Digest
    epochs: int
    rounds: int  # in an epoch
    student_steps: int  # in a round
    batch_size: int
    objective: Objective
    latent: int
    width: int
    generator_rate: float
    bank: int  # images; 0: none
    learning_rate: float  # of the student: the highest, reached after the warm-up
    momentum: float
    weight_decay: float
    warmup_epochs: float
    average: float  # decay of the running average of weights; 0: none
    precisions: tuple[Precision, ...]
    seed: int


@dataclass(frozen=True)
class Invented:
    """The student, in eval mode on the CPU; the generator's last images (64, C, H, W) in raw units; the curve."""

    module: nn.Module
    images: Tensor
    curve: tuple[CurvePoint, ...]


def invent(
    module: nn.Module,
    teacher: OpenTeacher,
    spec: InputSpec,
    view: View | None,
    loss: LossAt,
    plan: Rounds,
    folder: Path,
    validate: Callable[[nn.Module], float] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Invented:
    """Train ``module`` itself (pass a copy), going on from a checkpoint of the same plan in ``folder``.

    ``progress`` gets rounds done, rounds in all, and a note. Raises Interrupted on ``stop()``, after writing a
    checkpoint, and Diverged.
    """
    with kept_memory(), torch.random.fork_rng(devices=[]):
        run = _Invention(module, teacher, spec, view, loss, plan, folder)
        with run.execution.on_threads():
            while run.position.epoch < plan.epochs:
                run.epoch(progress, stop)
                run.close_epoch(validate)
            torch.manual_seed(seed_of(plan.seed, plan.epochs * plan.rounds))
            with torch.no_grad():
                images = run.generator(run.generator.noise(_SHOWN)).cpu()
    answering = laid_out(run.answering(), torch.device("cpu"), torch.contiguous_format).eval()
    return Invented(answering, images, run.position.curve)


def seed_of(*numbers: int) -> int:
    """A seed for torch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Invention:
    """The networks of one training and where it stands. It computes where the teacher's network is."""

    def __init__(
        self,
        module: nn.Module,
        teacher: OpenTeacher,
        spec: InputSpec,
        view: View | None,
        loss: LossAt,
        plan: Rounds,
        folder: Path,
    ) -> None:
        # a copy, for its hooks, and because a network built while it answered has inference tensors: no gradient passes
        self.teacher, self.network = teacher, copy.deepcopy(teacher.network()).eval().requires_grad_(False)
        self.spec, self.view = spec, view
        self.loss, self.now, self.plan, self.folder = loss, loss(0.0), plan, folder
        self.path = folder / CHECKPOINT_FILE
        folder.mkdir(parents=True, exist_ok=True)
        first = next(self.network.parameters(), None)
        self.device = torch.device("cpu") if first is None else first.device
        stored = read_checkpoint(self.path, plan.digest)
        if stored is None:
            execution = probe(module, spec.shape, plan.batch_size, self.device, plan.precisions)
            self.position = Position(plan=plan.digest, execution=execution)
        else:
            self.position = stored[0]
        self.execution = self.position.execution
        layout = self.execution.memory_format
        torch.manual_seed(seed_of(plan.seed, 2**32))  # the generator's first weights
        self.generator = Generator(spec, plan.latent, plan.width).train()
        laid_out(self.generator, self.device, layout)
        self.module = laid_out(module.train(), self.device, layout)
        self.average = Average(self.module, plan.average) if plan.average else None
        self.adam = Adam(self.generator, plan.generator_rate)
        self.optimizer = optimizer_of(self.module, plan)
        self.bank = Bank(spec, plan.bank) if plan.bank else None
        self.loss_sum = torch.zeros((), device=self.device, dtype=torch.float64)
        self.normalise = Normalisation(spec, self.device)
        # on a CPU a multiple of the threads, for the reason that `batches_of` gives
        with self.execution.on_threads():
            self.batch = len(batches_of(torch.arange(plan.batch_size), 1, self.device)[0])
        if stored is not None:
            self._restore(stored[1])
        write_curve(folder, self.position.curve)

    def answering(self) -> nn.Module:
        """The student that is validated and returned."""
        if self.average is None:
            return self.module
        self.average.settle()
        return self.average.module

    def epoch(self, progress: Callable[[int, int, str], None] | None, stop: Callable[[], bool]) -> None:
        """Every round of this epoch that is still to be done."""
        plan, epoch = self.plan, self.position.epoch
        self.now = self.loss(epoch / max(1, plan.epochs - 1))
        begun = told = saved = time.perf_counter()
        already, before = self.position.step, self.position.seconds
        for step in range(already, plan.rounds):
            if stop():
                self._save(step, before + time.perf_counter() - begun)
                raise Interrupted(
                    f"stopped in epoch {epoch + 1} of {plan.epochs}", "run the same command again: it goes on from here"
                )
            number = epoch * plan.rounds + step
            self.round(number)
            now = time.perf_counter()
            if progress is not None and now - told > _PROGRESS_EVERY_S:
                progress(number + 1, plan.epochs * plan.rounds, self._note((step + 1 - already) / (now - begun)))
                told = now
            if now - saved > _CHECKPOINT_EVERY_S and step + 1 < plan.rounds:
                self._save(step + 1, before + now - begun)
                saved = now
        self._mean_loss()
        self.position = self.position.but(step=plan.rounds, seconds=before + time.perf_counter() - begun)

    def round(self, number: int) -> None:
        """One step of the generator, and the student's."""
        torch.manual_seed(seed_of(self.plan.seed, number))
        images = self._draw()
        if self.bank is not None:
            self.bank.add(images)
        for step in range(self.plan.student_steps):
            self._teach(number * self.plan.student_steps + step)

    def close_epoch(self, validate: Callable[[nn.Module], float] | None) -> None:
        """Score, add the point to the curve, write the checkpoint."""
        plan, epoch = self.plan, self.position.epoch
        every = max(1, math.ceil(plan.epochs / 40))
        due = validate is not None and ((epoch + 1) % every == 0 or epoch + 1 == plan.epochs)
        begun = time.perf_counter()
        scored = validate(self.answering()) if validate is not None and due else None
        seconds = self.position.seconds + time.perf_counter() - begun
        point = CurvePoint(
            epoch=epoch,
            loss=self._mean_loss(),
            validation=scored,
            rate=float(self.optimizer.param_groups[0]["lr"]),
            images_per_s=plan.rounds * plan.student_steps * self.batch / max(seconds, 1e-9),
        )
        self.loss_sum.zero_()
        curve = (*self.position.curve, point)
        self.position = self.position.but(epoch=epoch + 1, step=0, seconds=0.0, curve=curve)
        self._save(0, 0.0)
        write_curve(self.folder, curve)

    def _draw(self) -> Tensor:
        """Images (N, C, H, W) in raw units, and the generator a step further."""
        objective = self.plan.objective
        self.module.eval()  # its running statistics are of what it learns from
        with Observed(self.network, objective.bn > 0, objective.activation > 0) as seen, self._autocast():
            images: Tensor = self.generator(self.generator.noise(self.batch)).float()
            taught: Tensor = self.network(self.teacher.prepared(images)).float()
            answered = self._answered(images).float() if objective.asks_student else None
        features = seen.features().float() if objective.activation else None
        self.adam.step(objective(taught, answered, features, seen.statistics() if objective.bn else None))
        self.module.train()
        return images.detach()

    def _teach(self, number: int) -> None:
        plan = self.plan
        with torch.no_grad(), self._autocast():
            images = self._lesson(number)
            taught: Tensor = self.network(self.teacher.prepared(images)).float()
        with self._autocast():
            answered = self._answered(images)
        value = self.now(answered.float(), taught, taught.argmax(1))
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        steps = plan.rounds * plan.student_steps
        rate = learning_rate(number, plan.epochs * steps, round(plan.warmup_epochs * steps), plan.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += value.detach()
        if self.average is not None:
            self.average.update(number)

    def _lesson(self, number: int) -> Tensor:
        """What the student sees in one step: raw-unit float32 (N, C, H, W)."""
        if self.bank is None:
            drawn: Tensor = self.generator(self.generator.noise(self.batch)).float()
            if self.view is None:
                return drawn
            codes, places = to_bytes(drawn, self.spec).cpu(), torch.arange(len(drawn))
        else:
            codes, places = self.bank.codes[: len(self.bank)], self.bank.draw(self.batch)
        if self.view is None:
            seen = codes.index_select(0, places)
        else:
            seen = self.view(codes, places.numpy(), seed_of(self.plan.seed, number, 1))
        return to_raw(seen.to(self.device), self.spec)

    def _answered(self, images: Tensor) -> Tensor:
        """The student's logits, differentiable down to the images."""
        answers: Tensor = self.module(self.normalise(images, self.execution.memory_format))
        return answers

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, self.execution.precision == "bfloat16")

    def _note(self, rounds_per_s: float) -> str:
        scored = next((p.validation for p in reversed(self.position.curve) if p.validation is not None), None)
        best = "" if scored is None else f", validation {scored:.1%}"
        images = rounds_per_s * self.plan.student_steps * self.batch
        epoch = min(self.position.epoch + 1, self.plan.epochs)
        return f"epoch {epoch}/{self.plan.epochs}, {images:,.0f} generated images/s{best}"

    def _mean_loss(self) -> float:
        mean = float(self.loss_sum) / (self.plan.rounds * self.plan.student_steps)
        if not math.isfinite(mean):
            raise Diverged(
                f"the loss became NaN or infinite in epoch {self.position.epoch + 1} of {self.plan.epochs}",
                f"lower learning_rate (it is {self.plan.learning_rate:g}) or generator.learning_rate "
                f"(it is {self.plan.generator_rate:g})",
            )
        return mean

    def _save(self, step: int, seconds: float) -> None:
        self._mean_loss()
        self.position = self.position.but(step=step, seconds=seconds)
        tensors = {**tensors_of(self._networks()), "loss_sum": self.loss_sum}
        for name, parameter in self.module.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors |= {f"adam.{name}": value for name, value in self.adam.state().items()}
        if self.bank is not None:
            tensors |= {"bank.codes": self.bank.codes[: len(self.bank)], "bank.added": torch.tensor(self.bank.added)}
        # tied parameters share memory, and safetensors wants each tensor to have its own
        write_checkpoint(self.path, self.position, {name: tensor.clone() for name, tensor in tensors.items()})

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        copied(tensors, self._networks())
        self.loss_sum.copy_(tensors["loss_sum"])
        for name, parameter in self.module.named_parameters():
            if f"momentum.{name}" in tensors:
                kept = torch.empty_like(parameter, requires_grad=False)
                self.optimizer.state[parameter]["momentum_buffer"] = kept.copy_(tensors[f"momentum.{name}"])
        self.adam.restore({name.removeprefix("adam."): t for name, t in tensors.items() if name.startswith("adam.")})
        if self.bank is not None:
            codes = tensors["bank.codes"]
            self.bank.codes[: len(codes)].copy_(codes)
            self.bank.added = int(tensors["bank.added"])

    def _networks(self) -> dict[str, nn.Module]:
        networks = {"module": self.module, "generator": self.generator}
        return networks if self.average is None else {**networks, "average": self.average.module}
