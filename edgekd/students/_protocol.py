"""Protocols of students: `Student`, families of architectures, and optional abilities of a family.

A `Student` is a module with its annotations. Stages (`edgekd.stages`) return a new one and never change the given one.
Exporters apply annotations and never add any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from edgekd.ir.encoding import Annotations
from edgekd.ir.space import Arch, Space
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.students.supernet.block_costs import BlockCost

__all__ = [
    "CutArch",
    "CutOut",
    "Cuttable",
    "Family",
    "Growing",
    "Inheriting",
    "Pretrained",
    "Shrinking",
    "Student",
    "Supernet",
    "SupernetFamily",
]


@dataclass(frozen=True)
class Student:
    """Module with everything an exporter needs. Treat ``module`` as immutable: copy before changing.

    ``module`` takes normalised float32 (N, C, H, W), or what else the task's `InputSpec` says, and returns logits
    (N, classes). ``family`` and ``options`` are enough to build the module again, anywhere: ``load_student`` does.
    """

    module: nn.Module
    task: TaskSpec
    family: str
    options: Mapping[str, Any]  # the family's own options, as in the project file
    arch: Arch
    annotations: Annotations = Annotations()

    def but(self, **changes: Any) -> Student:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


class Family(Protocol):
    """Space of student architectures. Constructed from its options (a frozen record) in the project file."""

    name: ClassVar[str]
    inherits: ClassVar[bool]  # true: `build` gives trained weights (a person's own model, pruned)

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs that fit this task. Raises ConfigurationError if none can."""
        ...

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build the module of one arch, in eval mode. Random weights come from torch's global generator: seed it."""
        ...


@runtime_checkable
class Pretrained(Protocol):
    """Family that starts from a trained model, and has an arch for the whole of it."""

    def original(self, spec: TaskSpec) -> Arch | None:
        """Return the arch that changes nothing; None if the space does not contain it."""
        ...


@runtime_checkable
class Inheriting(Pretrained, Protocol):
    """Family that removes parts of a trained model."""

    def left_out(self, spec: TaskSpec) -> Sequence[tuple[str, str]]:
        """Return the layers that every arch leaves whole, and why."""
        ...


@dataclass(frozen=True)
class Cuttable:
    """Pretrained network from which archs are cut: channels by groups of layers, and removable modules."""

    module: nn.Module
    channels: Mapping[str, int]  # of each group
    removable: Sequence[str]  # modules by name, each of one tensor in and one of its shape out
    take: Callable[[nn.Module, Mapping[str, int]], None]  # leaves a copy so many channels of some groups, in place


@dataclass(frozen=True)
class CutArch:
    """Remaining channels and removed modules of one arch."""

    channels: Mapping[str, int]  # of each group
    removed: Mapping[str, str]  # modules left out, and the operator in each one's place ("": none)


@runtime_checkable
class CutOut(Protocol):
    """Family whose archs are all cut from one network, so that a few traces give the shapes of all."""

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs that fit this task; see `Family`."""
        ...

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build the module of one arch; see `Family`."""
        ...

    def whole(self, spec: TaskSpec) -> Cuttable:
        """Return the whole network."""
        ...

    def cut(self, arch: Arch, spec: TaskSpec) -> CutArch:
        """Return the remaining channels and removed modules of an arch; nothing is built."""
        ...


@runtime_checkable
class Shrinking(Protocol):
    """Family whose students can be reduced to smaller ones that keep their trained weights."""

    def shrink(self, module: nn.Module, before: Arch, after: Arch, spec: TaskSpec) -> nn.Module:
        """Return a new module of the arch ``after``, no larger than ``before`` on any axis, with ``module``'s weights.

        Its parameters have the names and shapes that ``build(after)`` gives.
        """
        ...


@runtime_checkable
class Growing(Protocol):
    """Family whose students can start smaller and grow during the training."""

    def growth_schedule(self, arch: Arch) -> Sequence[Arch]:
        """Return the archs before this one, smallest first, without itself; empty if there are none."""
        ...

    def transfer_weights(self, module: nn.Module, before: Arch, into: nn.Module, after: Arch) -> nn.Module:
        """Return a copy of ``into``, of the arch ``after``, with the weights of ``module``, of the arch ``before``.

        A larger network has the same outputs as ``module``: new blocks change nothing until they are trained. A smaller
        one keeps the common weights.
        """
        ...


class Supernet(Protocol):
    """Supernet: one `torch.nn.Module` that mixes all archs of a space.

    ``picks`` has a weight for every choice of every axis, (choices,) each, which sum to 1. If one choice of each axis
    has all the weight, the network computes that arch's outputs; weights in between give a mixture, differentiable in
    them.
    """

    def __call__(self, images: Tensor, picks: Mapping[str, Tensor]) -> Tensor:
        """Map normalised images (N, C, H, W) to logits (N, classes)."""
        ...

    def extract(self, arch: Arch) -> nn.Module:
        """Return a copy of one arch's weights as the family builds it, in eval mode; this network is not changed.

        BatchNorm's statistics are of the mixture it was trained as: recompute them before the module is scored.
        """
        ...


@runtime_checkable
class SupernetFamily(Protocol):
    """Family whose choice of an arch can be trained with the weights (differentiable search)."""

    def supernet(self, spec: TaskSpec) -> Supernet:
        """Return the supernet, with new weights. Raises ConfigurationError for axes that it doesn't support."""
        ...

    def block_costs(self, spec: TaskSpec) -> Sequence[BlockCost]:
        """Return block costs: the cost of each part of an arch by the axes it depends on. Evidence kind: analytic."""
        ...
