"""Training of a family's supernet with choice probabilities: the recipe's losses, with the device's costs as terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from edgekd.distill.autotune import probe
from edgekd.distill.differentiable_search import CostBound, train_supernet
from edgekd.distill.losses._protocol import Loss, Term
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.distill.trainer import training_device
from edgekd.errors import ConfigurationError
from edgekd.events import StageProgress
from edgekd.ir.space import Arch, Axis
from edgekd.recipes.born_again import BornAgain
from edgekd.records import Digest, digest_bytes, digest_json
from edgekd.search._protocol import EstimateContext
from edgekd.search.accuracy.scoring import stage_context
from edgekd.search.differentiable.costs import share_of
from edgekd.stages import Stage
from edgekd.store.differentiable import LatencyModelRecord, SupernetPoint
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.students._protocol import Family, SupernetFamily
from edgekd.students.student import new_student
from edgekd.students.supernet.choices import Choices

__all__ = ["TrainedChoice", "supernet_family", "supernet_stage", "train_choice"]

_FOLDER = "supernet"
_HOW: Mapping[str, Literal["spend", "keep", "pull"]] = {"latency": "spend", "bytes": "pull"}


@dataclass(frozen=True)
class TrainedChoice:
    """Result of training a choice: logits of every axis, curve, most probable arch, digest of the weights."""

    logits: Mapping[str, tuple[float, ...]]
    points: tuple[SupernetPoint, ...]
    mode: Arch
    weights: Digest


def supernet_family(family: Family) -> SupernetFamily:
    """Return the family itself. Raises ConfigurationError where the choice of its archs can't be trained."""
    if not isinstance(family, SupernetFamily):
        raise ConfigurationError.one(
            f"the choice of an arch of the family `{family.name}` can't be trained",
            "use resnet, mobilenet or pruned, or search by sampling: leave search.by out",
        )
    return family


def supernet_stage(recipe: Sequence[Stage]) -> Distill:
    """Stage whose losses train the supernet: the recipe's first with a loss on logits, else its first `distill`.

    Raises ConfigurationError without one, and where its learning rate would have to be found first.
    """
    plain = [stage.shortened(stage.epochs) if isinstance(stage, BornAgain) else stage for stage in recipe]
    found = [stage for stage in plain if isinstance(stage, Distill)]
    on_logits = [stage for stage in found if any(_teaches(part) for _, part in stage.loss.parts)]
    if found:
        chosen = (on_logits or found)[0]
        if chosen.learning_rate == "auto":
            raise ConfigurationError.one(
                "distill: learning_rate: auto tests the rates of one network, and `by: differentiable` trains many",
                "write a number, for example learning_rate: 0.1",
            )
        return chosen
    raise ConfigurationError.one(
        "the recipe has no stage `distill`, and its losses are what the choice of an arch is trained by",
        "add one, or search by sampling",
    )


def train_choice(
    context: EstimateContext, options: DifferentiableOptions, axes: Sequence[Axis], model: LatencyModelRecord
) -> TrainedChoice:
    """Train weights and choice together, or resume. Raises Interrupted, Diverged, ConfigurationError."""
    spec, family = context.task.spec, supernet_family(context.family)
    stage = supernet_stage(context.recipe)
    within = stage_context(None, context)
    student = new_student(context.family, context.family.space(spec).at(0), spec, context.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        network = cast(nn.Module, family.supernet(spec))
    choices = Choices(axes)
    bounds = _bounds(model, options, axes)
    folder = context.stages / _FOLDER
    with stage.training_data(student, within) as (data, loss, plan):
        digest = digest_json(
            ["supernet/3", plan.digest, options.model_dump(mode="json"), model.but(ended_s=0).digest()]
        )
        device = training_device()
        asked = stage.warmup_epochs  # else the plan's may be a tenth of the recipe's epochs
        warmup = min(asked if asked is not None else min(plan.warmup_epochs, 1.0), options.epochs / 2)
        picks = {name: row.detach() for name, row in choices.probabilities().items()}
        execution = probe(_Mixed(network, picks), spec.input, plan.batch_size, device, plan.precisions)
        points = train_supernet(
            network,
            choices,
            data,
            _on_logits(loss),
            replace(plan, digest=digest, epochs=options.epochs, warmup_epochs=warmup, average=0.0),
            options,
            bounds,
            folder,
            execution,
            progress=lambda done, total, note: context.progress(StageProgress("supernet", done, total, note)),
            stop=context.stop,
            device=device,
        )
    logits = {name: tuple(round(x, 6) for x in row.tolist()) for name, row in choices.logits.items()}
    return TrainedChoice(logits, points, choices.mode(), _digest(network))


class _Mixed(nn.Module):
    """Supernet with fixed choice probabilities, so that it can be called as any module."""

    def __init__(self, network: nn.Module, picks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network, self.picks = network, dict(picks)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.network(images, {name: row.to(images.device) for name, row in self.picks.items()})
        return answer


def _digest(network: nn.Module) -> Digest:
    """Digest of the weights alone: the file beside them also records the training time."""
    return digest_bytes(save({name: t.detach().contiguous().clone() for name, t in network.named_parameters()}))


def _bounds(model: LatencyModelRecord, options: DifferentiableOptions, axes: Sequence[Axis]) -> list[CostBound]:
    found = []
    for term in model.terms:
        cost = share_of(model, term, axes)
        if cost is not None:
            pull = options.bytes_pull if term.name == "bytes" else 0.0
            found.append(CostBound(term.name, cost, _HOW.get(term.name, "keep"), pull))
    return found


def _on_logits(loss: Combined) -> Combined:
    """Return the losses on logits: those on inner activations are tied to one student's layers."""
    parts = tuple((name, part) for name, part in loss.parts if isinstance(part, Loss))
    if not any(_teaches(part) for _, part in parts):
        return Combined.model_validate({"ce": {}})
    return Combined(parts=parts)


def _teaches(part: Term) -> bool:
    """Tell whether a term is a loss on logits with a weight other than 0."""
    return isinstance(part, Loss) and bool(part.weight or part.schedule)
