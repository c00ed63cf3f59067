"""Trains a module on samples in memory, with a teacher's answers. Knows neither tasks nor recipes.

SGD with Nesterov momentum; no weight decay on biases and normalisation. Samples are one tensor, batches are slices of a
permutation drawn anew for each epoch; nothing in a step waits for a number to come back from the device. Everything
random is seeded by (seed, epoch, step), so a resumed training ends with the very weights of one never interrupted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.answers import AnswerSource
from edgekd.distill.augment.mixing import Mixed
from edgekd.distill.average import Average
from edgekd.distill.checkpoint import Position, read_checkpoint, write_checkpoint
from edgekd.distill.curve import write_curve
from edgekd.distill.heads.batches import Batched, blended, chosen, floats, moved, placed
from edgekd.distill.inputs import Normalisation
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.memory import kept_memory
from edgekd.distill.objective import Objective
from edgekd.distill.probe import Execution, Precision, laid_out, probe
from edgekd.distill.schedule import learning_rate
from edgekd.errors import Diverged, Interrupted
from edgekd.records import Digest
from edgekd.store.records import CurvePoint
from edgekd.students.points import tapped
from edgekd.tasks._protocol import InputSpec, TaskSpec
from edgekd.tasks.mapped import release
from edgekd.teachers._protocol import View

__all__ = ["CHECKPOINT_FILE", "Lesson", "Plan", "Trained", "batches_of", "optimizer_of", "seed_of_step", "train"]

CHECKPOINT_FILE = "checkpoint.safetensors"
_CHECKPOINT_EVERY_S = 20.0
_PROGRESS_EVERY_S = 0.5
_NO_LABELS = torch.empty(0, dtype=torch.int64)
_EXPLAINED = 10  # epochs of a training whose terms are told apart


@dataclass(frozen=True)
class Plan:
    """How to train. ``digest`` tells the checkpoints of one training from another's."""

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
    keep_best: bool = False  # return the best of start and epochs by validation, not the last epoch


@dataclass(frozen=True)
class Lesson:
    """What to train on. Epoch e sees the samples as ``view`` shows them under ``view_seeds[e % k]``."""

    inputs: Tensor  # (N, C, H, W), raw, on the CPU
    labels: Batched  # (N,) int64, or those of several heads by name
    spec: InputSpec
    view: View | None
    view_seeds: Sequence[int]  # k of them
    answers: AnswerSource | None  # what the teacher says to each view
    classes: int
    heads: TaskSpec | None = None  # where labels are of several heads


@dataclass(frozen=True)
class Trained:
    """The module (the running average of weights, where one was kept), in eval mode on the CPU, and its curve."""

    module: nn.Module
    curve: tuple[CurvePoint, ...]
    execution: Execution


def train(
    module: nn.Module,
    lesson: Lesson,
    objective: Objective,
    plan: Plan,
    folder: Path,
    validate: Callable[[nn.Module], float] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> Trained:
    """Train ``module`` itself (pass a copy), going on from a checkpoint of the same plan in ``folder``.

    The objective's own parameters are trained along.

    ``validate`` scores a module after an epoch; about forty times at most, and always at the end. ``progress`` gets
    samples seen, samples in all, and a note. Raises Interrupted on ``stop()``, after writing a checkpoint, and
    Diverged.
    """
    run = _Training(module, lesson, objective, plan, folder, device or training_device())
    cuda = range(torch.cuda.device_count()) if run.device.type == "cuda" else []
    with run.execution.on_threads(), kept_memory(), torch.random.fork_rng(devices=cuda), run.looking():
        if validate is not None and plan.keep_best and run.position.best is None:
            run.keep(validate(run.answering()))
        while run.position.epoch < plan.epochs:
            run.epoch(progress, stop)
            run.close_epoch(validate)
    # back to the plain layout, so that it answers bit by bit as it will when it is read from a file
    answering = laid_out(run.ending(), torch.device("cpu"), torch.contiguous_format).eval()
    return Trained(answering, run.position.curve, run.position.execution)


def batches_of(order: Tensor, steps: int, device: torch.device) -> Sequence[Tensor]:
    """The samples in this order, cut into batches of nearly equal length, so that none is too small for its statistics.

    On a CPU each is a multiple of the threads, where there are enough samples; the few left over, fewer than threads,
    wait for another epoch.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or len(order) < threads * steps:
        return torch.tensor_split(order, steps)
    # torch 2.13 writes out of bounds in the backward pass of strided 1 x 1 convolutions, channels last, with AVX-512
    # and few channels, where a batch does not divide evenly among threads: the process dies
    whole = order[: len(order) // threads * threads].reshape(-1, threads)
    return [piece.reshape(-1) for piece in torch.tensor_split(whole, steps)]


class _Training:
    """The tensors of one training and where it stands."""

    def __init__(
        self, module: nn.Module, lesson: Lesson, objective: Objective, plan: Plan, folder: Path, device: torch.device
    ) -> None:
        self.lesson, self.plan, self.folder, self.device = lesson, plan, folder, device
        self.objective, self.seen = objective.to(device).train(), dict[str, Tensor]()
        self.shares: dict[str, float] = {}
        self.path = folder / CHECKPOINT_FILE
        folder.mkdir(parents=True, exist_ok=True)
        stored = read_checkpoint(self.path, plan.digest)
        if stored is None:
            shape = lesson.spec.shape
            execution = probe(module, shape, plan.batch_size, device, plan.precisions)
            self.position = Position(plan=plan.digest, execution=execution)
        else:
            self.position = stored[0]
        self.execution = self.position.execution
        self.module = laid_out(_in_training(module), device, self.execution.memory_format)
        self.average = Average(self.module, plan.average) if plan.average else None
        self.trained = nn.ModuleDict({"module": self.module, "objective": self.objective})
        self.optimizer = optimizer_of(self.trained, plan)
        self.loss_sum = torch.zeros((), device=device, dtype=torch.float64)
        self.best: dict[str, Tensor] = {}
        if stored is not None:
            self._restore(stored[1])
        self.normalise = Normalisation(lesson.spec, device)
        count = len(lesson.inputs)
        self.steps = max(1, math.ceil(count / plan.batch_size))
        with self.execution.on_threads():
            self.used = sum(map(len, batches_of(torch.arange(count), self.steps, device)))
        if stored is None:  # before anything else: a training that is killed has to go on with the layout it began in
            self._save(0, 0.0)
        write_curve(folder, self.position.curve)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Inside this, ``seen`` holds the activations that the objective asks for, after every pass of the module."""
        if self.objective.layout is None:
            yield
            return
        # the running average was copied before, so that it has no taps
        with tapped(self.module, self.objective.layout, self.objective.student_points) as self.seen:
            yield

    def answering(self) -> nn.Module:
        """The module that is validated and returned, with the layers of its arch."""
        if self.average is not None:
            self.average.settle()
        answering = self.module if self.average is None else self.average.module
        if self.objective.changes_student:
            answering = copy.deepcopy(answering)
            self.objective.detach_from(answering)
        return answering

    def keep(self, score: float) -> None:
        """What answers now is the best so far."""
        self.best = {name: tensor.clone() for name, tensor in _state(self.answering()).items()}
        self.position = self.position.but(best=score)

    @torch.no_grad()
    def ending(self) -> nn.Module:
        """The module to return."""
        answering = self.answering()
        for name, tensor in _state(answering).items() if self.best else ():
            tensor.copy_(self.best[name])
        return answering

    def epoch(self, progress: Callable[[int, int, str], None] | None, stop: Callable[[], bool]) -> None:
        """Every step of this epoch that is still to be done."""
        epoch, plan, lesson = self.position.epoch, self.plan, self.lesson
        count = len(lesson.inputs)
        generator = torch.Generator().manual_seed(seed_of_step(plan.seed, epoch, 0))
        batches = batches_of(torch.randperm(count, generator=generator), self.steps, self.device)
        view = epoch % len(lesson.view_seeds)
        self.objective.move_to(epoch / max(1, plan.epochs - 1))
        total, warmup = self.steps * plan.epochs, round(plan.warmup_epochs * self.steps)
        begun = told = saved = time.perf_counter()
        seen = sum(len(batch) for batch in batches[: self.position.step])
        already = seen
        before = self.position.seconds
        _in_training(self.module)
        for step in range(self.position.step, self.steps):
            if stop():
                self._save(step, before + time.perf_counter() - begun)
                raise Interrupted(
                    f"stopped in epoch {epoch + 1} of {plan.epochs}", "run the same command again: it goes on from here"
                )
            torch.manual_seed(seed_of_step(plan.seed, epoch, step + 1))  # for dropout and the like
            number = epoch * self.steps + step
            rate = learning_rate(number, total, warmup, plan.learning_rate)
            self._step(batches[step], view, rate, number, last=step + 1 == self.steps)
            seen += len(batches[step])
            now = time.perf_counter()
            if progress is not None and now - told > _PROGRESS_EVERY_S:
                progress(epoch * count + seen, plan.epochs * count, self._note((seen - already) / (now - begun)))
                told = now
            if now - saved > _CHECKPOINT_EVERY_S and step + 1 < self.steps:
                self._save(step + 1, before + now - begun)
                saved = now
        self._mean_loss()  # waits for the device, so that the time is all of it
        seconds = before + time.perf_counter() - begun
        self.position = self.position.but(step=self.steps, seconds=seconds)
        if progress is not None:
            progress((epoch + 1) * count, plan.epochs * count, self._note(count / max(seconds, 1e-9)))

    def _step(self, batch: Tensor, view: int, rate: float, number: int, last: bool) -> None:
        raw, labels = self._shown(batch, self.lesson.view_seeds[view])
        inputs = self.normalise(raw, self.execution.memory_format if raw.ndim == 4 else None)
        taught, hints = None, dict[str, Tensor]()
        if self.lesson.answers is not None:
            said, features = self.lesson.answers(view, batch, raw)
            taught = said.to(self.device, non_blocking=True)
            hints = {name: self._laid_out(hint) for name, hint in features.items()}
        there = placed(labels, self.device)
        single, several = (there, None) if isinstance(there, Tensor) else (_NO_LABELS, there)
        about = Batch(batch.to(self.device, non_blocking=True), single)
        with torch.autocast(self.device.type, torch.bfloat16, self.execution.precision == "bfloat16"):
            outputs = self.module(inputs)
        own = {name: activation.float() for name, activation in self.seen.items()}
        terms: list[Tensor] = self.objective(floats(outputs), taught, own, hints, about, several)
        value = torch.stack(terms).sum()
        if last and self._explained(len(terms)):
            self.shares = self._apart(terms)
        else:
            self.shares = {}
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += value.detach() * len(batch)
        if self.average is not None:
            self.average.update(number)
        release()

    def _explained(self, terms: int) -> bool:
        every, epoch = math.ceil(self.plan.epochs / _EXPLAINED), self.position.epoch
        return terms > 1 and (epoch % every == 0 or epoch + 1 == self.plan.epochs)

    def _apart(self, terms: Sequence[Tensor]) -> dict[str, float]:
        """The terms' backward passes one by one, and how much of the pull on the student's weights each term has.

        That is its gradient's length over the sum of all.
        """
        learning = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        own = {id(weight) for weight in self.module.parameters()}
        lengths = [_pulled(term, learning, own) for term in terms]
        whole = sum(lengths)
        if not math.isfinite(whole) or not whole:  # told as what it is, a divergence, at the end of the epoch
            return {}
        return {name: length / whole for name, length in zip(self.objective.names(), lengths, strict=True)}

    def _laid_out(self, hint: Tensor) -> Tensor:
        """As the student's own activations are: two layouts in one operation make it many times slower."""
        keep = self.execution.memory_format if hint.ndim == 4 else torch.preserve_format
        return hint.to(self.device, torch.float32, non_blocking=True, memory_format=keep)

    def _shown(self, batch: Tensor, seed: int) -> tuple[Tensor, Batched]:
        """These samples and their labels as the view shows them; boxes and masks go where it moves pixels."""
        lesson, indices = self.lesson, batch.numpy()
        if lesson.view is None:
            return lesson.inputs.index_select(0, batch), chosen(lesson.labels, batch)
        pixels = lesson.view(lesson.inputs, indices, seed)
        if isinstance(lesson.labels, Tensor):
            return pixels, lesson.view.targets(lesson.labels, indices, seed, lesson.classes)
        assert lesson.heads is not None
        if isinstance(lesson.view, Mixed):
            return pixels, blended(lesson.heads, lesson.view, lesson.labels, indices, seed)
        own = chosen(lesson.labels, batch)
        assert not isinstance(own, Tensor)
        return pixels, moved(lesson.heads, lesson.view, own, indices, seed)

    def close_epoch(self, validate: Callable[[nn.Module], float] | None) -> None:
        """Score, add the point to the curve, write the checkpoint."""
        epoch, plan, count = self.position.epoch, self.plan, len(self.lesson.inputs)
        every = max(1, math.ceil(plan.epochs / 40))
        due = validate is not None and ((epoch + 1) % every == 0 or epoch + 1 == plan.epochs)
        begun = time.perf_counter()
        scored = validate(self.answering()) if validate is not None and due else None
        if scored is not None and self.position.best is not None and scored >= self.position.best:
            self.keep(scored)
        seconds = self.position.seconds + time.perf_counter() - begun
        point = CurvePoint(
            epoch=epoch,
            loss=self._mean_loss(),
            validation=scored,
            rate=float(self.optimizer.param_groups[0]["lr"]),
            images_per_s=count / max(seconds, 1e-9),
            shares=self.shares,
        )
        self.loss_sum.zero_()
        curve = (*self.position.curve, point)
        self.position = self.position.but(epoch=epoch + 1, step=0, seconds=0.0, curve=curve)
        self._save(0, 0.0)
        write_curve(self.folder, curve)

    def _note(self, images_per_s: float) -> str:
        scored = next((p.validation for p in reversed(self.position.curve) if p.validation is not None), None)
        best = "" if scored is None else f", validation {scored:.1%}"
        epoch = min(self.position.epoch + 1, self.plan.epochs)
        threads = (
            ""
            if self.execution.threads is None
            else f" on {self.execution.threads} thread{'s' if self.execution.threads > 1 else ''}"
        )
        return f"epoch {epoch}/{self.plan.epochs}{best}, {images_per_s:,.0f} images/s{threads}"

    def _mean_loss(self) -> float:
        mean = float(self.loss_sum) / self.used
        if not math.isfinite(mean):
            raise Diverged(*self._diagnosis())
        return mean

    def _diagnosis(self) -> tuple[str, str]:
        """What went wrong, looked for only once it has: the inputs, the teacher, or the training itself."""
        answers, inputs = self.lesson.answers, self.lesson.inputs
        if answers is not None and not answers.finite():
            return "the teacher answers NaN or infinity", "check its weights, and its mean and std in raw units"
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            return "the training inputs hold NaN or infinity", "clean the data"
        return (
            f"the loss became NaN or infinite in epoch {self.position.epoch + 1} of {self.plan.epochs}",
            f"lower learning_rate (it is {self.plan.learning_rate:g}) or raise warmup_epochs "
            f"(it is {self.plan.warmup_epochs:g})"
            + ("; or set precision: float32" if self.execution.precision != "float32" else ""),
        )

    def _save(self, step: int, seconds: float) -> None:
        if not math.isfinite(float(self.loss_sum)):
            raise Diverged(*self._diagnosis())
        self.position = self.position.but(step=step, seconds=seconds)
        tensors = {f"module.{name}": tensor for name, tensor in _state(self.module).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in _state(self.average.module).items()}
        tensors |= {f"objective.{name}": tensor for name, tensor in _state(self.objective).items()}
        for name, parameter in self.trained.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors["loss_sum"] = self.loss_sum
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        # tied parameters share memory, and safetensors wants each tensor to have its own
        write_checkpoint(self.path, self.position, {name: tensor.clone() for name, tensor in tensors.items()})

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in _state(self.module).items():
            tensor.copy_(tensors[f"module.{name}"])
        if self.average is not None:
            for name, tensor in _state(self.average.module).items():
                tensor.copy_(tensors[f"average.{name}"])
        for name, tensor in _state(self.objective).items():
            tensor.copy_(tensors[f"objective.{name}"])
        for name, parameter in self.trained.named_parameters():
            if f"momentum.{name}" in tensors:
                kept = torch.empty_like(parameter, requires_grad=False)
                self.optimizer.state[parameter]["momentum_buffer"] = kept.copy_(tensors[f"momentum.{name}"])
        self.loss_sum.copy_(tensors["loss_sum"])
        self.best = {
            name.removeprefix("best."): tensor.to(self.device)
            for name, tensor in tensors.items()
            if name.startswith("best.")
        }


def _pulled(term: Tensor, learning: Sequence[Tensor], counted: Collection[int]) -> float:
    """Adds a term's gradient to what each weight has, and tells its length on the weights of these ids.

    0 where it reaches none, as where all it looks at is frozen.
    """
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, learning, retain_graph=True, allow_unused=True)
    squares = []
    for weight, found in zip(learning, gradients, strict=True):
        if found is not None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.add_(found)  # never put in its place: a fused optimizer takes its memory to be laid out alike
            if id(weight) in counted:
                squares.append(found.float().square().sum())
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, those kept out of the state dict too."""
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def _in_training(module: nn.Module) -> nn.Module:
    """The module in training mode, but for parts that are frozen: their statistics stand still too."""
    module.train()
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()
    return module


class Steps(Protocol):
    """What a training's steps are like: of a `Plan`, and of other trainings' plans."""

    @property
    def learning_rate(self) -> float:
        """The highest."""
        ...

    @property
    def momentum(self) -> float:
        """Nesterov's, where above 0."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of everything but small tensors."""
        ...


def optimizer_of(module: nn.Module, plan: Steps) -> torch.optim.SGD:
    """SGD over what can be trained; biases and normalisation don't decay."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and normalisation
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        momentum=plan.momentum,
        nesterov=plan.momentum > 0,
        fused=True,
    )


def seed_of_step(seed: int, epoch: int, step: int) -> int:
    """Of everything random in one step of an epoch."""
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_device() -> torch.device:
    from accelerate import Accelerator  # a second to import

    device: torch.device = Accelerator().device
    return device
