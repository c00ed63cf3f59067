"""The contracts of students: `Student`, families of architectures, and what a family may offer besides.

A `Student` is a module with its annotations. Stages (`edgekd.stages`) return another one and never change the one they
were given. Exporters apply annotations and never invent any.
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

    from edgekd.students.supernet.pieces import Piece

__all__ = [
    "CutArch",
    "CutOut",
    "Cuttable",
    "Family",
    "Growing",
    "Inheriting",
    "Relaxable",
    "Relaxed",
    "Shrinking",
    "Student",
]


@dataclass(frozen=True)
class Student:
    """A module with everything an exporter needs to know. Treat ``module`` as immutable: copy before changing.

    ``module`` takes normalised float32 (N, C, H, W) and returns logits (N, classes).
    ``family`` and ``options`` are enough to build the module again, anywhere: ``load_student`` does.
    """

    module: nn.Module
    task: TaskSpec
    family: str
    options: Mapping[str, Any]  # the family's own options, as in the project file
    arch: Arch
    annotations: Annotations = Annotations()

    def but(self, **changes: Any) -> Student:
        """A copy with some fields replaced."""
        return replace(self, **changes)


class Family(Protocol):
    """A space of student architectures. Constructed from its options (a frozen record) in the project file."""

    name: ClassVar[str]
    inherits: ClassVar[bool]  # whether `build` gives trained weights (a person's own model, pruned)

    def space(self, spec: TaskSpec) -> Space:
        """The archs that fit this task. Raises ConfigurationError where none can."""
        ...

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """A module for one arch, in eval mode. Fresh weights come from torch's global generator: seed it."""
        ...


@runtime_checkable
class Inheriting(Protocol):
    """A family that starts from a trained model, and can tell which arch is the whole of it."""

    def original(self, spec: TaskSpec) -> Arch | None:
        """The arch that changes nothing; None where the space leaves it out."""
        ...

    def left_out(self, spec: TaskSpec) -> Sequence[tuple[str, str]]:
        """Layers that every arch leaves whole, and why."""
        ...


@dataclass(frozen=True)
class Cuttable:
    """A whole network out of which archs are cut: channels by groups of layers, and modules that are left out."""

    module: nn.Module
    channels: Mapping[str, int]  # of each group
    removable: Sequence[str]  # modules by name, each of one tensor in and one of its shape out
    take: Callable[[nn.Module, Mapping[str, int]], None]  # leaves a copy so many channels of some groups, in place


@dataclass(frozen=True)
class CutArch:
    """What one arch has left of it."""

    channels: Mapping[str, int]  # of each group
    removed: Mapping[str, str]  # modules left out, and the operator in each one's place ("": none)


@runtime_checkable
class CutOut(Protocol):
    """A family all of whose archs are cut out of one network, so that a few traces tell the shapes of all."""

    def space(self, spec: TaskSpec) -> Space:
        """As of any family."""
        ...

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """As of any family."""
        ...

    def whole(self, spec: TaskSpec) -> Cuttable:
        """The network."""
        ...

    def cut(self, arch: Arch, spec: TaskSpec) -> CutArch:
        """What an arch has left of it; nothing is built."""
        ...


@runtime_checkable
class Shrinking(Protocol):
    """A family whose students can become smaller ones of it and keep what they have learned."""

    def shrink(self, module: nn.Module, before: Arch, after: Arch, spec: TaskSpec) -> nn.Module:
        """A new module of the arch ``after``, no axis of which is larger than ``before``'s, with weights of ``module``.

        Its parameters have the names and shapes that ``build(after)`` gives.
        """
        ...


@runtime_checkable
class Growing(Protocol):
    """A family whose students can begin as smaller ones and become larger while they learn."""

    def way_to(self, arch: Arch) -> Sequence[Arch]:
        """The archs to pass through on the way to this one, the smallest first, without itself; empty where none is."""
        ...

    def carry(self, module: nn.Module, before: Arch, into: nn.Module, after: Arch) -> nn.Module:
        """A copy of ``into``, of the arch ``after``, with the weights of ``module``, of the arch ``before``.

        Grown, it answers as ``module`` does: what it has besides changes nothing until it learns. Cut down, it keeps
        what both have.
        """
        ...


class Relaxed(Protocol):
    """One network that is every arch of a space, more or less of each at a time: a `torch.nn.Module`.

    ``picks`` has a weight for every choice of every axis, (choices,) each, adding up to 1. Where one choice of each
    axis has it all, the network computes what that arch does; weights between are a mixture, differentiable in them.
    """

    def __call__(self, images: Tensor, picks: Mapping[str, Tensor]) -> Tensor:
        """Normalised (N, C, H, W) to logits (N, classes)."""
        ...

    def extract(self, arch: Arch) -> nn.Module:
        """A copy of one arch's share of the weights as the family builds it, in eval mode; this network stays as it is.

        BatchNorm's statistics are of the mixture it was trained as: count them anew before the module is scored.
        """
        ...


@runtime_checkable
class Relaxable(Protocol):
    """A family whose choice of an arch can be trained along with the weights."""

    def relaxed(self, spec: TaskSpec) -> Relaxed:
        """The network with every choice in it, fresh weights. Raises ConfigurationError on axes that it can't relax."""
        ...

    def pieces(self, spec: TaskSpec) -> Sequence[Piece]:
        """What each part of an arch costs, by the few axes it depends on. Evidence kind: analytic."""
        ...
