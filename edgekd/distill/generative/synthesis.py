"""Data-free training loop: alternating steps of a generator and a student with a frozen teacher.

Each round is one step of the generator on fresh noise; its images go to the bank; then some steps of the student on
images of the bank (without a bank: on fresh images), labelled by the teacher. The module depends on neither tasks nor
recipes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.distill.autotune import Execution, Precision, laid_out, probe, takes_channels_last
from edgekd.distill.checkpoint import Position, started
from edgekd.distill.curve import last_score, write_curve
from edgekd.distill.generative.adam import adversary
from edgekd.distill.generative.bank import Bank, to_bytes, to_raw
from edgekd.distill.generative.generator import Generator
from edgekd.distill.generative.objective import TermWeights
from edgekd.distill.generative.statistics import Observed
from edgekd.distill.inputs import Normalisation
from edgekd.distill.learner import Learner, sgd
from edgekd.distill.loop import batches_of
from edgekd.distill.schedule import learning_rate
from edgekd.distill.trainer import Epoch, Progress, Stateful, StepIndex, Trainer, TrainerPlan, seed_of
from edgekd.records import Digest
from edgekd.store.records import CurvePoint
from edgekd.tasks._protocol import InputSpec, Score
from edgekd.teachers._protocol import OpenTeacher, View
from edgekd.teachers.observed import prepared_input

__all__ = ["LossAt", "StudentLoss", "SynthesisPlan", "Synthesized", "synthesize"]

StudentLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scalar loss of the student's logits (N, C), the teacher's (N, C) and the teacher's top classes (N,) int64."""

LossAt = Callable[[float], StudentLoss]
"""The loss when a share (0 to 1) of the training is done."""

_CHECKPOINT_EVERY_S = 60.0  # a bank makes checkpoints large
_SHOWN = 64


@dataclass(frozen=True)
class SynthesisPlan:
    """Training plan. ``digest`` distinguishes the checkpoints of different trainings."""

    digest: Digest
    epochs: int
    rounds: int  # in an epoch
    student_steps: int  # in a round
    batch_size: int
    objective: TermWeights
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
class Synthesized:
    """Result: the student, in eval mode on the CPU; the last generated images (64, C, H, W) in raw units; the curve."""

    module: nn.Module
    images: Tensor
    curve: tuple[CurvePoint, ...]


def synthesize(
    module: nn.Module,
    teacher: OpenTeacher,
    spec: InputSpec,
    view: View | None,
    loss: LossAt,
    plan: SynthesisPlan,
    folder: Path,
    validate: Callable[[nn.Module], Score] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Synthesized:
    """Train ``module`` in place (pass a copy), resuming from a checkpoint of the same plan in ``folder``.

    ``progress`` gets rounds done, rounds in all, and a note. Raises Interrupted on ``stop()``, after writing a
    checkpoint, and Diverged.
    """
    # a copy, for its hooks, and because a network built while it answered has inference tensors: no gradient passes
    network = copy.deepcopy(teacher.network()).eval().requires_grad_(False)
    first = next(network.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    start = started(
        folder,
        plan.digest,
        Position[CurvePoint],
        lambda: probe(module, spec, plan.batch_size, device, plan.precisions),
    )
    run = _Synthesis(module, teacher, network, spec, view, loss, plan, start.position.execution, device)
    trainer = Trainer(
        run.step,
        run.state(),
        TrainerPlan(plan.epochs, plan.rounds, plan.seed, "number", checkpoint_every_s=_CHECKPOINT_EVERY_S),
        start,
        diverged=run.diagnosis,
        begin=run.begin,
        close=run.close,
        publish=partial(write_curve, folder),
        answer=run.student.answering,
        validate=validate,
        note=run.note,
        device=device,
    )
    trainer.run(progress, stop)
    return Synthesized(trainer.ending(), run.shown(), trainer.position.points)


class _Synthesis:
    """Networks of one training, and one round of it. Computes on the device of the teacher's network."""

    def __init__(
        self,
        module: nn.Module,
        teacher: OpenTeacher,
        network: nn.Module,
        spec: InputSpec,
        view: View | None,
        loss: LossAt,
        plan: SynthesisPlan,
        execution: Execution,
        device: torch.device,
    ) -> None:
        self.teacher, self.network, self.spec, self.view = teacher, network, spec, view
        self.loss, self.now, self.plan = loss, loss(0.0), plan
        self.execution, self.device = execution, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(plan.seed, 2**32))  # the generator's first weights
            self.generator = Generator(spec, plan.latent, plan.width).train()
        laid_out(self.generator, device, execution.memory_format)
        self.module = laid_out(module.train(), device, execution.memory_format)
        self.generator_learner = adversary(self.generator, plan.generator_rate)
        steps = plan.rounds * plan.student_steps
        total, warmup = plan.epochs * steps, round(plan.warmup_epochs * steps)
        self.student = Learner(
            self.module,
            sgd(self.module, plan),
            lambda number: learning_rate(number, total, warmup, plan.learning_rate),
            plan.average,
        )
        self.bank = Bank(spec, plan.bank) if plan.bank else None
        self.normalise = Normalisation(spec, device)
        # on a CPU a multiple of the threads, for the reason that `batches_of` gives
        with execution.on_threads():
            last = takes_channels_last(network, prepared_input(teacher, spec))
            self.teacher_layout = execution.memory_format if last else torch.contiguous_format
            self.batch = len(batches_of(torch.arange(plan.batch_size), 1, device)[0])

    def state(self) -> dict[str, Stateful | Tensor]:
        """Return everything that rounds change."""
        learners: dict[str, Stateful | Tensor] = {"student": self.student, "generator": self.generator_learner}
        return learners if self.bank is None else {**learners, "bank": self.bank}

    def begin(self, epoch: int) -> None:
        """Update the scheduled loss."""
        self.now = self.loss(epoch / max(1, self.plan.epochs - 1))

    def step(self, at: StepIndex) -> Mapping[str, Tensor]:
        """Do a round: one step of the generator, then the student's steps."""
        images = self._draw(at.number)
        if self.bank is not None:
            self.bank.add(images)
        steps, first = self.plan.student_steps, at.number * self.plan.student_steps
        losses = [self._train_student(first + step).double() for step in range(steps)]
        return {"loss": torch.stack(losses).sum()}

    def shown(self) -> Tensor:
        """Return images (64, C, H, W) in raw units from the generator as it is now."""
        with self.execution.on_threads(), torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed_of(self.plan.seed, self.plan.epochs * self.plan.rounds))
            images: Tensor = self.generator(self.generator.noise(_SHOWN)).cpu()
        return images

    def close(self, epoch: Epoch) -> CurvePoint:
        """Return the epoch's point of the learning curve."""
        steps = self.plan.rounds * self.plan.student_steps
        return CurvePoint(
            epoch=epoch.number,
            loss=epoch.losses["loss"] / steps,
            validation=epoch.score,
            rate=self.student.rate,
            images_per_s=steps * self.batch / max(epoch.seconds, 1e-9),
        )

    def _draw(self, number: int) -> Tensor:
        """Do a step of the generator, and return its images (N, C, H, W) in raw units."""
        objective = self.plan.objective
        self.module.eval()  # so that generated images don't change BatchNorm's running statistics
        with Observed(self.network, objective.bn > 0, objective.activation > 0) as seen, self._autocast():
            images: Tensor = self.generator(self.generator.noise(self.batch)).float()
            teacher_logits = self._teacher_logits(images)
            student_logits = self._student_logits(images).float() if objective.asks_student else None
        features = seen.features().float() if objective.activation else None
        self.generator_learner.descend(
            objective(teacher_logits, student_logits, features, seen.statistics() if objective.bn else None), number
        )
        self.module.train()
        return images.detach()

    def _train_student(self, number: int) -> Tensor:
        with torch.no_grad(), self._autocast():
            images = self._student_inputs(number)
            teacher_logits = self._teacher_logits(images)
        with self._autocast():
            student_logits = self._student_logits(images)
        value = self.now(student_logits.float(), teacher_logits, teacher_logits.argmax(1))
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self.student.update(number)
        return value.detach()

    def _teacher_logits(self, images: Tensor) -> Tensor:
        prepared = self.teacher.prepared(images).contiguous(memory_format=self.teacher_layout)
        logits: Tensor = self.network(prepared).float()
        return logits

    def _student_inputs(self, number: int) -> Tensor:
        """Return the student's inputs for one step: float32 (N, C, H, W) in raw units."""
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

    def _student_logits(self, images: Tensor) -> Tensor:
        """Return the student's logits, differentiable with respect to the images."""
        answers: Tensor = self.module(self.normalise(images, self.execution.memory_format))
        return answers

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, self.execution.precision == "bfloat16")

    def note(self, at: Progress[CurvePoint]) -> str:
        """Format epoch, speed and validation score."""
        images = at.steps_per_s * self.plan.student_steps * self.batch
        epoch = min(len(at.points) + 1, self.plan.epochs)
        return f"epoch {epoch}/{self.plan.epochs}, {images:,.0f} generated images/s{last_score(at.points)}"

    def diagnosis(self, epoch: int) -> tuple[str, str]:
        """Return problem and remedy of a divergence."""
        return (
            f"the loss became NaN or infinite in epoch {epoch + 1} of {self.plan.epochs}",
            f"lower learning_rate (it is {self.plan.learning_rate:g}) or generator.learning_rate "
            f"(it is {self.plan.generator_rate:g})",
        )
