"""Training loop of a student on samples in memory with teacher logits and features.

Depends on neither tasks nor recipes.

SGD with Nesterov momentum; no weight decay on biases and normalisation. Samples are one tensor, batches are slices of a
permutation drawn anew for each epoch; nothing in a step waits for a number to come back from the device.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.distill.augment.mixing import Mixed
from edgekd.distill.autotune import Execution, Precision, laid_out, probe
from edgekd.distill.checkpoint import Position, started
from edgekd.distill.curve import last_score, write_curve
from edgekd.distill.heads.batches import Batched, blended, chosen, floats, moved, to_device
from edgekd.distill.inputs import Normalisation
from edgekd.distill.learner import Learner, sgd
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.objective import Objective
from edgekd.distill.range_test import range_test
from edgekd.distill.schedule import Schedule, learning_rate
from edgekd.distill.teacher_source import TeacherSource
from edgekd.distill.trainer import Epoch, Progress, StepIndex, Trainer, TrainerPlan, seed_of, training_device
from edgekd.records import Digest
from edgekd.store.records import CurvePoint
from edgekd.students.points import tapped
from edgekd.tasks._protocol import InputSpec, Score, TaskSpec
from edgekd.teachers._protocol import View

__all__ = ["Plan", "Trained", "TrainingData", "batches_of", "train"]

_NO_LABELS = torch.empty(0, dtype=torch.int64)
_EXPLAINED = 10  # epochs of a training whose terms are backpropagated separately


@dataclass(frozen=True)
class Plan:
    """Training plan. ``digest`` distinguishes the checkpoints of different trainings."""

    digest: Digest
    epochs: int
    batch_size: int
    learning_rate: float  # the highest, reached after the warm-up
    momentum: float
    weight_decay: float
    warmup_epochs: float
    average: float  # decay of the running average of weights; 0: none
    precisions: tuple[Precision, ...]  # allowed; the probe chooses
    seed: int
    schedule: Schedule = "cosine"
    clip: float | None = None  # length of the longest gradient
    keep_best: bool = False  # return the best of start and epochs by validation, not the last epoch
    keeps_start: bool = False  # with ``keep_best``: return the start unless an epoch beats it beyond chance
    tests_range: bool = False  # a range test first finds the `learning_rate`


@dataclass(frozen=True)
class TrainingData:
    """Training data. In epoch e, samples are augmented by ``view`` under ``view_seeds[e % k]``."""

    inputs: Tensor  # (N, C, H, W), raw, on the CPU
    labels: Batched  # (N,) int64, or by name for several heads
    spec: InputSpec
    view: View | None
    view_seeds: Sequence[int]  # k of them
    teacher: TeacherSource | None  # teacher logits and features for each view
    classes: int
    heads: TaskSpec | None = None  # where labels are of several heads


@dataclass(frozen=True)
class Trained:
    """Result: the module (the running average if there is one), in eval mode on the CPU, and its learning curve."""

    module: nn.Module
    curve: tuple[CurvePoint, ...]
    execution: Execution


def train(
    module: nn.Module,
    data: TrainingData,
    objective: Objective,
    plan: Plan,
    folder: Path,
    validate: Callable[[nn.Module], Score] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
    late: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train ``module`` in place (pass a copy), resuming from a checkpoint of the same plan in ``folder``.

    The objective's own parameters are trained too.

    ``validate`` scores a module after an epoch; about forty times at most, and always at the end. ``progress`` gets
    samples seen, samples in all, and a note. A training that keeps its best ends with the next validated epoch
    once it is ``late()``. Raises Interrupted on ``stop()``, after writing a checkpoint, and Diverged.
    """
    device = device or training_device()
    start = started(
        folder,
        plan.digest,
        Position[CurvePoint],
        lambda: probe(module, data.spec, plan.batch_size, device, plan.precisions),
    )
    if plan.tests_range:
        if start.position.rate is None:
            report = partial(progress or (lambda *_: None), 0, plan.epochs * len(data.inputs))
            tested = partial(_losses_over, module, data, objective, plan, start.position.execution, device, report)
            steps = plan.epochs * max(1, math.ceil(len(data.inputs) / plan.batch_size))
            start = replace(start, position=start.position.but(rate=range_test(tested, steps, stop)))
        plan = replace(plan, learning_rate=start.position.rate or plan.learning_rate)
    work = _Training(module, data, objective, plan, start.position.execution, device)
    trainer = Trainer(
        work.step,
        {"student": work.student, "objective": Learner(work.objective, work.student.optimizer)},
        TrainerPlan(plan.epochs, work.steps, plan.seed, keep_best=plan.keep_best, keeps_start=plan.keeps_start),
        start,
        diverged=work.diagnosis,
        begin=work.begin,
        close=work.close,
        publish=partial(write_curve, folder),
        answer=work.answering,
        validate=validate,
        note=work.note,
        device=device,
    )
    count, steps = len(data.inputs), work.steps

    def samples(done: int, total: int, note: str) -> None:
        if progress is not None:
            progress(done * count // steps, total * count // steps, note)

    with work.looking():
        trainer.run(samples, stop, late)
    return Trained(trainer.ending(), trainer.position.points, start.position.execution)


def batches_of(order: Tensor, steps: int, device: torch.device) -> Sequence[Tensor]:
    """Split the samples, in this order, into batches of nearly equal length, so that none is too small for BatchNorm.

    On a CPU, if there are enough samples, each batch is a multiple of the threads; the few left over, fewer than
    threads, wait for another epoch.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or len(order) < threads * steps:
        return torch.tensor_split(order, steps)
    # torch 2.13 writes out of bounds in the backward pass of strided 1 x 1 convolutions, channels last, with AVX-512
    # and few channels, where a batch does not divide evenly among threads: the process dies
    whole = order[: len(order) // threads * threads].reshape(-1, threads)
    return [piece.reshape(-1) for piece in torch.tensor_split(whole, steps)]


def _losses_over(
    module: nn.Module,
    data: TrainingData,
    objective: Objective,
    plan: Plan,
    execution: Execution,
    device: torch.device,
    report: Callable[[str], None],
    rates: Sequence[float],
) -> Iterator[float]:
    """Yield the loss of each step at these rates, training copies that are then dropped. ``report`` gets notes."""
    module, objective = copy.deepcopy((module, objective))  # together: a loss may have put layers into the module
    plan = replace(plan, learning_rate=rates[0], average=0.0)
    work = _Training(module, data, objective, plan, execution, device, rates.__getitem__)
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with work.looking(), execution.on_threads(), torch.random.fork_rng(devices=cuda):
        for number in range(len(rates)):
            epoch, step = divmod(number, work.steps)
            if step == 0:
                work.begin(epoch)
            at = StepIndex(epoch, step, number, seed_of(plan.seed, epoch, step + 1))
            torch.manual_seed(at.seed)
            yield float(work.step(at)["loss"]) / len(work.batches[step])
            report(f"range test of the learning rate, step {number + 1} of {len(rates)} at most")


class _Training:
    """State and step of one training. ``rate`` replaces the plan's schedule."""

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        objective: Objective,
        plan: Plan,
        execution: Execution,
        device: torch.device,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        self.data, self.plan, self.execution, self.device = data, plan, execution, device
        self.objective, self.seen = objective.to(device).train(), dict[str, Tensor]()
        self.shares: dict[str, float] = {}
        self.batches: Sequence[Tensor] = ()
        self.module = laid_out(_in_training(module), device, execution.memory_format)
        self.normalise = Normalisation(data.spec, device)
        count = len(data.inputs)
        self.steps = max(1, math.ceil(count / plan.batch_size))
        total, warmup = self.steps * plan.epochs, round(plan.warmup_epochs * self.steps)
        self.student = Learner(
            self.module,
            sgd(nn.ModuleList([self.module, self.objective]), plan),
            rate or (lambda number: learning_rate(number, total, warmup, plan.learning_rate, plan.schedule)),
            plan.average,
            plan.clip,
        )
        with execution.on_threads():
            self.used = sum(map(len, batches_of(torch.arange(count), self.steps, device)))

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Record in ``seen``, after every forward pass, the activations that the objective needs."""
        if self.objective.layout is None:
            yield
            return
        # the running average was copied before, so that it has no taps
        with tapped(self.module, self.objective.layout, self.objective.student_points) as self.seen:
            yield

    def answering(self) -> nn.Module:
        """Return the module to validate and return, with the layers of its arch."""
        answering = self.student.answering()
        if self.objective.changes_student:
            answering = copy.deepcopy(answering)
            self.objective.detach_from(answering)
        return answering

    def begin(self, epoch: int) -> None:
        """Draw the epoch's batches, and update the scheduled losses."""
        generator = torch.Generator().manual_seed(seed_of(self.plan.seed, epoch, 0))
        order = torch.randperm(len(self.data.inputs), generator=generator)
        self.batches = batches_of(order, self.steps, self.device)
        self.objective.move_to(epoch / max(1, self.plan.epochs - 1))
        _in_training(self.module)

    def step(self, at: StepIndex) -> Mapping[str, Tensor]:
        """Train on one batch."""
        batch, view = self.batches[at.step], at.epoch % len(self.data.view_seeds)
        raw, labels = self._shown(batch, self.data.view_seeds[view])
        inputs = self.normalise(raw, self.execution.memory_format if raw.ndim == 4 else None)
        teacher_logits, teacher_features = None, dict[str, Tensor]()
        if self.data.teacher is not None:
            logits, features = self.data.teacher(view, batch, raw)
            teacher_logits = logits.to(self.device, non_blocking=True)
            teacher_features = {name: self._laid_out(feature) for name, feature in features.items()}
        there = to_device(labels, self.device)
        single, several = (there, None) if isinstance(there, Tensor) else (_NO_LABELS, there)
        about = Batch(batch.to(self.device, non_blocking=True), single)
        with torch.autocast(self.device.type, torch.bfloat16, self.execution.precision == "bfloat16"):
            outputs = self.module(inputs)
        own = {name: activation.float() for name, activation in self.seen.items()}
        terms: list[Tensor] = self.objective(floats(outputs), teacher_logits, own, teacher_features, about, several)
        value = torch.stack(terms).sum()
        if at.step + 1 == self.steps and self._explained(at.epoch, len(terms)):
            self.shares = self._apart(terms)
        else:
            self.shares = {}
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self.student.update(at.number)
        return {"loss": value.detach() * len(batch)}

    def _explained(self, epoch: int, terms: int) -> bool:
        every = math.ceil(self.plan.epochs / _EXPLAINED)
        return terms > 1 and (epoch % every == 0 or epoch + 1 == self.plan.epochs)

    def _apart(self, terms: Sequence[Tensor]) -> dict[str, float]:
        """Backpropagate the terms one by one, and return each term's share of the gradient on the student's weights.

        The share is the term's gradient norm over the sum of all norms.
        """
        learning = [weight for group in self.student.optimizer.param_groups for weight in group["params"]]
        own = {id(weight) for weight in self.module.parameters()}
        lengths = [_pulled(term, learning, own) for term in terms]
        whole = sum(lengths)
        if not math.isfinite(whole) or not whole:  # reported as a divergence at the end of the epoch
            return {}
        return {name: length / whole for name, length in zip(self.objective.names(), lengths, strict=True)}

    def _laid_out(self, feature: Tensor) -> Tensor:
        """Return teacher features in the student's memory layout: mixing two layouts makes an operation far slower."""
        keep = self.execution.memory_format if feature.ndim == 4 else torch.preserve_format
        return feature.to(self.device, torch.float32, non_blocking=True, memory_format=keep)

    def _shown(self, batch: Tensor, seed: int) -> tuple[Tensor, Batched]:
        """Return augmented samples and their labels; boxes and masks move with the pixels."""
        data, indices = self.data, batch.numpy()
        if data.view is None:
            return data.inputs.index_select(0, batch), chosen(data.labels, batch)
        pixels = data.view(data.inputs, indices, seed)
        if isinstance(data.labels, Tensor):
            return pixels, data.view.targets(data.labels, indices, seed, data.classes)
        assert data.heads is not None
        if isinstance(data.view, Mixed):
            return pixels, blended(data.heads, data.view, data.labels, indices, seed)
        own = chosen(data.labels, batch)
        assert not isinstance(own, Tensor)
        return pixels, moved(data.heads, data.view, own, indices, seed)

    def close(self, epoch: Epoch) -> CurvePoint:
        """Return the epoch's point of the learning curve."""
        return CurvePoint(
            epoch=epoch.number,
            loss=epoch.losses["loss"] / self.used,
            validation=epoch.score,
            rate=self.student.rate,
            images_per_s=len(self.data.inputs) / max(epoch.seconds, 1e-9),
            shares=self.shares,
        )

    def note(self, at: Progress[CurvePoint]) -> str:
        """Format epoch, validation score and speed."""
        epoch, count = min(len(at.points) + 1, self.plan.epochs), self.execution.threads
        threads = "" if count is None else f" on {count} thread{'s' if count > 1 else ''}"
        speed = at.steps_per_s * len(self.data.inputs) / self.steps
        return f"epoch {epoch}/{self.plan.epochs}{last_score(at.points)}, {speed:,.0f} samples/s{threads}"

    def diagnosis(self, epoch: int) -> tuple[str, str]:
        """Return problem and remedy of a divergence: the inputs, the teacher, or the training itself."""
        teacher, inputs = self.data.teacher, self.data.inputs
        if teacher is not None and not teacher.finite():
            return "the teacher outputs NaN or infinity", "check its weights, and its mean and std in raw units"
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            return "the training inputs hold NaN or infinity", "clean the data"
        return (
            f"the loss became NaN or infinite in epoch {epoch + 1} of {self.plan.epochs}",
            f"lower learning_rate (it is {self.plan.learning_rate:g}) or raise warmup_epochs "
            f"(it is {self.plan.warmup_epochs:g})"
            + ("; or set precision: float32" if self.execution.precision != "float32" else ""),
        )


def _pulled(term: Tensor, learning: Sequence[Tensor], counted: Collection[int]) -> float:
    """Add a term's gradient to each weight's, and return its norm over the weights of these ids.

    Returns 0 if the term has no gradient, for example if all its inputs are frozen.
    """
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, learning, retain_graph=True, allow_unused=True)
    squares = []
    for weight, found in zip(learning, gradients, strict=True):
        if found is not None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.add_(found)  # in place, never assigned: a fused optimizer expects the weight's memory layout
            if id(weight) in counted:
                squares.append(found.float().square().sum())
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _in_training(module: nn.Module) -> nn.Module:
    """Set the module to training mode, except frozen parts: their BatchNorm statistics stay fixed too."""
    module.train()
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()
    return module
