"""Layerwise distillation, the recipe stage `layerwise`: trains a student block by block on its teacher's features, then
as a whole.

A block lies between two of the compared points (`points: each stage` gives one for each resolution). Each block has one
short training, in order from the input: only that block's weights are trained, so that the features at its end match
the teacher's at the same place; earlier blocks are finished and frozen, later blocks get no gradient. Labels are not
used. This is stage-by-stage knowledge transfer (Romero et al. 2015, "FitNets", ICLR, arXiv 1412.6550, whose first step
is one such block; Gao et al. 2018, "An embarrassingly simple approach for knowledge distillation", arXiv 1812.01819,
which trains the stages one after the other and then the classifier alone).

Everything after the last point, mainly the classifier, is unchanged. So a `distill` stage has to follow, or `join:
{epochs: 20}`, with the options of one, which then trains the whole student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PositiveInt, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from edgekd.distill.curve import write_curve
from edgekd.distill.layer_matching import match_layers
from edgekd.distill.losses._protocol import Loss
from edgekd.distill.losses.combined import Combined
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Problem
from edgekd.recipes.cohort import part_of_progress, renamed
from edgekd.stages import StageContext
from edgekd.store.records import CurvePoint
from edgekd.students._protocol import Student
from edgekd.students.points import feeding

__all__ = ["Layerwise"]

_NO_LABELS = {"ce": {"weight": 0.0}}
_ALONE = {"fitnet": 1.0, "reviewkd": 1.0}  # weights that aren't written: the usual ones outweigh labels
_BLOCKS = 3  # assumed to estimate a training before the student is known


def _alone(name: str, options: Any) -> dict[str, Any]:
    """Return a loss with its default weight when used alone: there the weight only multiplies the learning rate."""
    options = {} if options is None else options
    return {name: {"weight": _ALONE[name], **options} if name in _ALONE and isinstance(options, Mapping) else options}


def _each_alone(losses: Any) -> Any:
    if not isinstance(losses, Mapping):
        return losses
    return {name: given for pair in losses.items() for name, given in _alone(*pair).items()}


class Layerwise(Distill):
    """Options of `layerwise`: those of `distill` for each block's training, and the final training ``join``."""

    name: ClassVar[str] = "layerwise"

    loss: Combined = Field(default_factory=lambda: Combined.model_validate({**_alone("fitnet", {}), **_NO_LABELS}))
    epochs: PositiveInt = 10  # of each block
    join: Annotated[Distill | None, Field(description="options of `distill` for the whole student at the end")] = None

    @field_validator("loss", mode="before")
    @classmethod
    def _without_labels(cls, value: Any) -> Any:
        """Set the weight of `ce` to 0 unless it is given: it would be added, and weighted against the features."""
        if isinstance(value, str):
            value = {value: {}}
        if isinstance(value, Mapping) and "parts" not in value:
            value = _each_alone(value)
            return value if "ce" in value else {**value, **_NO_LABELS}
        return [*map(_each_alone, value), _NO_LABELS] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_on_features(self) -> Self:
        labels = [name for name, loss in self.loss.parts if isinstance(loss, Loss) and (loss.weight or loss.schedule)]
        if labels or self.label_smoothing is not None:
            found = labels[0] if labels else "label_smoothing"
            raise PydanticCustomError(
                "layerwise",
                "a block has no logits, so {found} can't be applied to it: write it under `join`, or in a distill",
                {"found": f"`{found}`"},
            )
        if len(self.loss.features) != 1:
            raise PydanticCustomError(
                "layerwise", "one loss on inner activations is expected, for example loss: fitnet"
            )
        ((name, loss),) = self.loss.features
        if loss.adds_layers:
            raise PydanticCustomError(
                "layerwise",
                "{name} adds layers to the student's last block: write it under `join`",
                {"name": f"`{name}`"},
            )
        return self

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems of any block, and of the joined training."""
        found = [renamed(problem, self.name) for problem in super().check(student, context)]
        if found:
            return found
        blocks = self._blocks(student, context)
        if isinstance(blocks, str):
            return [Problem(f"layerwise: {blocks}", "compare other points, or train the student as a whole: distill")]
        found = [
            renamed(problem, self.name) for block in blocks for problem in self._stage_of(block).check(student, context)
        ]
        found += self.join.check(student, context) if self.join else []
        return list(dict.fromkeys(found))

    def prepare(self, context: StageContext) -> None:
        """Cache the teacher's outputs for the blocks and for the joined training."""
        super().prepare(context)
        if self.join is not None:
            self.join.prepare(context)

    @property
    def passes(self) -> int:
        """Total epochs, for a student of a usual number of blocks."""
        (_, loss), *_ = self.loss.features
        blocks = len(loss.points) if isinstance(loss.points, tuple) else _BLOCKS
        return self.epochs * blocks + (self.join.epochs if self.join else 0)

    def cut_to(self, share: float) -> Layerwise:
        """Return the same stage with this share of its epochs, for each block and for ``join``."""
        return super().cut_to(share).but(join=None if self.join is None else self.join.cut_to(share))

    def shortened(self, epochs: int) -> Layerwise:
        """Return a short training: few epochs for each block; ``join`` is shortened like any other stage."""
        join = None if self.join is None else self.join.shortened(epochs)
        return self.but(epochs=min(self.epochs, max(1, epochs // _BLOCKS)), join=join)

    def run(self, student: Student, context: StageContext) -> Student:
        """Return the joined student. Finished blocks are stored in ``context.folder`` and not trained again."""
        from edgekd.recipes.runner import run_recipe

        problems = self.check(student, context)
        blocks = self._blocks(student, context) if not problems else ""
        if problems or isinstance(blocks, str):
            raise ConfigurationError(problems)
        stages = [(self._stage_of(block), f"block {n}/{len(blocks)}") for n, block in enumerate(blocks, start=1)]
        stages += [(self.join, "joined")] if self.join else []
        curve: list[CurvePoint] = []
        for number, (stage, word) in enumerate(stages):
            inner = replace(
                context,
                folder=context.folder / f"training-{number + 1}",
                progress=part_of_progress(context, self.name, number, len(stages), word),
            )
            done = run_recipe([stage], student, inner, context.folder / "students")
            offset = len(curve)
            curve += [point.but(epoch=point.epoch + offset) for point in done.curve]
            write_curve(context.folder, curve)
            student = done.student
        return student

    def _blocks(self, student: Student, context: StageContext) -> tuple[_Block, ...] | str:
        """Return the blocks to train, from the input on; or why there are none, in words."""
        networks = self._networks(student, context)
        if networks is None:
            return "the teacher provides only logits"
        ((name, loss),) = self.loss.features
        site = match_layers(name, loss, networks)
        if isinstance(site, str):
            return site
        order = {point: place for place, point in enumerate(networks.student.points)}
        blocks, before = list[_Block](), frozenset[str]()
        for own, other in sorted(site.pairs, key=lambda pair: order[pair[0].name]):
            upto = feeding(student.module, networks.student, own.name, context.task.spec.input)
            if upto - before:
                blocks.append(_Block((own.name, other.name), upto - before))
            before = before | upto
        kept = [block for block in blocks if not _all_frozen(student.module, block.learns, self.freeze)]
        if not kept:
            return f"no parameters are trained at {' and '.join(own.name for own, _ in site.pairs)}"
        mixed = [part for block in kept for part in _split(student.module, block.learns)[1]]
        if mixed:
            return f"the student's `{mixed[0]}` has weights of two blocks, and would be partly frozen"
        return tuple(replace(b, frozen=(*self.freeze, *_split(student.module, b.learns)[0])) for b in kept)

    def _stage_of(self, block: _Block) -> Distill:
        """Return plain `distill` for one pair of points, with everything outside the block frozen."""
        ((name, loss),) = self.loss.features
        written = {**loss.model_dump(mode="json"), "points": [block.pair]}
        return self.plain(loss={name: written, **_NO_LABELS}, freeze=block.frozen)


@dataclass(frozen=True)
class _Block:
    pair: tuple[str, str]  # the student's point and the teacher's
    learns: frozenset[str]  # names of its parameters
    frozen: tuple[str, ...] = ()  # parts of the student that stand still meanwhile


def _split(module: nn.Module, learns: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the largest parts without any of these parameters, and parts that directly own both kinds."""
    named = dict(module.named_parameters(remove_duplicate=False))
    wanted = {id(named[name]) for name in learns}

    def walk(part: nn.Module, path: str) -> tuple[list[str], list[str]]:
        own = [id(parameter) in wanted for parameter in part.parameters(recurse=False)]
        frozen, mixed = list[str](), [path or "root"] if own and not all(own) else []
        for name, child in part.named_children():
            where = f"{path}.{name}" if path else name
            inside = [id(parameter) in wanted for parameter in child.parameters()]
            if inside and not any(inside):
                frozen.append(where)
            elif not all(inside):
                deeper = walk(child, where)
                frozen, mixed = frozen + deeper[0], mixed + deeper[1]
        return frozen, mixed

    return walk(module, "")


def _all_frozen(module: nn.Module, learns: frozenset[str], names: Sequence[str]) -> bool:
    still = {id(p) for name in names for p in module.get_submodule(name).parameters()}
    return all(id(parameter) in still for name, parameter in module.named_parameters() if name in learns)
