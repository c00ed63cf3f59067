"""Students and what makes them: archs, spaces, families, and the one shape every step of a recipe has.

A `Student` is a module with its annotations. Stages take a student and return another; they never change the one
they were given. Exporters apply annotations and never invent any.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from edgekd.artefacts import Backend, Precision
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.records import Digest, Record
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.teachers._protocol import Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.students.pieces import Piece

__all__ = [
    "Annotations",
    "Arch",
    "Axis",
    "Candidate",
    "CompressionPlan",
    "CutArch",
    "CutOut",
    "Cuttable",
    "DrawsImages",
    "Encoding",
    "Family",
    "Growing",
    "Inheriting",
    "Prepares",
    "Relaxable",
    "Relaxed",
    "Shrinking",
    "Space",
    "Stage",
    "StageContext",
    "StageProgress",
    "Student",
    "Trains",
]

Choice = int | float


class Arch(Record):
    """One point of a space: a frozen, hashable mapping from axis to choice, kept in alphabetical order of axes."""

    choices: tuple[tuple[str, Choice], ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        pairs = value["choices"] if isinstance(value, Mapping) and set(value) == {"choices"} else value.items()
        return {"choices": tuple(sorted(pairs))}

    @model_serializer
    def _to_mapping(self) -> dict[str, Choice]:
        return dict(self.choices)

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> Self:
        """From a mapping."""
        return cls(choices=tuple(choices.items()))

    def __getitem__(self, axis: str) -> Choice:
        return dict(self.choices)[axis]

    def __str__(self) -> str:
        return " ".join(f"{axis}={choice:g}" for axis, choice in self.choices)


class Axis(Record):
    """One dimension of a space and its choices, in ascending order."""

    name: str
    choices: tuple[Choice, ...]


class Space(Record):
    """A finite set of archs: the product of its axes."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """How many archs there are."""
        return math.prod(len(axis.choices) for axis in self.axes)

    def __iter__(self) -> Iterator[Arch]:  # type: ignore[override]  # a space is its archs, not its fields
        names = [axis.name for axis in self.axes]
        for combination in itertools.product(*(axis.choices for axis in self.axes)):
            yield Arch(choices=tuple(zip(names, combination, strict=True)))

    def __contains__(self, arch: Arch) -> bool:
        choices = {axis.name: axis.choices for axis in self.axes}
        return len(arch.choices) == len(choices) and all(
            choice in choices.get(name, ()) for name, choice in arch.choices
        )

    def at(self, index: int) -> Arch:
        """The arch with a given index in iteration order. Raises IndexError."""
        if not 0 <= index < self.size:
            raise IndexError(f"arch {index} of a space of {self.size}")
        picks: list[tuple[str, Choice]] = []
        for axis in reversed(self.axes):
            index, digit = divmod(index, len(axis.choices))
            picks.append((axis.name, axis.choices[digit]))
        return Arch(choices=tuple(reversed(picks)))

    def indices(self, count: int, seed: int) -> list[int]:
        """Indices of all archs, ascending, or of ``count`` (2 at least): both ends, and others evenly at random."""
        if self.size <= count:
            return list(range(self.size))
        drawn, rng = {0, self.size - 1}, random.Random(seed)  # numpy's generators end at 64 bits
        while len(drawn) < count:
            drawn.add(rng.randrange(self.size))
        return sorted(drawn)

    def encode(self, arch: Arch) -> tuple[float, ...]:
        """Each axis as the rank of its choice, scaled to 0..1."""
        return tuple(axis.choices.index(arch[axis.name]) / max(1, len(axis.choices) - 1) for axis in self.axes)


class CompressionPlan(Record):
    """What is done to a trained arch before it ships."""

    precision: Precision = Precision.FLOAT32
    untouched: bool = False  # the arch's own weights as they came: quantized, never trained

    @model_serializer(mode="wrap")
    def _as_it_always_was(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what says nothing here."""
        return {name: value for name, value in whole(self).items() if name != "untouched" or value}


class Candidate(Record):
    """What a search proposes and a device measures: family, arch, compression plan, and the backend it is meant for."""

    family: str
    arch: Arch
    plan: CompressionPlan = CompressionPlan()
    backend: Backend | None = None  # the arm; None while it is open

    def __str__(self) -> str:
        where = f" on {self.backend}" if self.backend else ""
        arch = f" {self.arch}" if self.arch.choices else ""
        arch = " as it came" if self.plan.untouched else arch
        return f"{self.family}{arch} {self.plan.precision.value}{where}"


class Encoding(Record):
    """How one tensor becomes integers: ``q = round(x / scale) + zero_point``, clamped to ``bits``.

    ``scale`` and ``zero_point`` have one value, or one a channel along ``axis``. Zero points are for signed storage
    (-128..127 at 8 bits); an exporter that stores unsigned adds 128.
    """

    bits: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    limit: int | None = None  # largest magnitude of a weight's integers; 63 keeps x86 without VNNI from saturating


class Annotations(Record):
    """Decisions about a student that its module does not show. Empty for a float32 student.

    Weights are keyed by parameter name (``stem.conv.weight``); activations by the module path and operator of the
    exported graph, ``path:operator`` with ``.n`` where one module calls it more than once (``blocks.0:add``), and
    ``input`` for the input. Names refer to the student after BatchNorm folding.
    """

    precision: Precision = Precision.FLOAT32
    weights: Mapping[str, Encoding] = {}
    activations: Mapping[str, Encoding] = {}
    calibration: str = ""  # how the activations' ranges were found, in words


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


@dataclass(frozen=True)
class StageProgress:
    """Where a stage is: shown to the person, never recorded."""

    stage: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class StageContext:
    """What a stage may use. ``folder`` is its own, kept between runs: checkpoints go there."""

    task: Task
    teacher: Teacher | None
    device: Fingerprint | None  # whose instruction set calibration is for
    backend: Backend | None  # the arm it is meant for; narrows what an encoding can be
    folder: Path
    cache: Path  # shared by all stages and runs: teachers' answers
    seed: int
    progress: Callable[[StageProgress], None]
    stop: Callable[[], bool]  # true when the person asked to stop: finish the current write, raise Interrupted


class Stage(Protocol):
    """One step of a recipe. Constructed from its options (a frozen record) in the project file."""

    name: ClassVar[str]

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Every reason it can't run, found before any training."""
        ...

    def key(self, inputs: Digest) -> Digest:
        """Identity of this stage's result, given the identity of what goes in."""
        ...

    def run(self, student: Student, context: StageContext) -> Student:
        """Do it. Resumes from ``context.folder``; raises Interrupted when ``context.stop()``."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """A stage that trains on more images than the training split has, or on none of it."""

    def images(self, samples: int) -> int:
        """How many pass through training, of ``samples`` in the training split."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A stage with work that is the same for every student, worth doing before a search counts its time."""

    def prepare(self, context: StageContext) -> None:
        """Do that work; ``run`` finds it done. Raises Interrupted when ``context.stop()``."""
        ...


@runtime_checkable
class Trains(Protocol):
    """A stage that trains, and says for how long: a search reckons with it, and ranks candidates by less of it."""

    @property
    def passes(self) -> int:
        """How often it passes through the training samples in all, over everything it trains."""
        ...

    def shortened(self, epochs: int) -> Stage:
        """A stage that ranks students about as this one does, in so many epochs at the most."""
        ...
