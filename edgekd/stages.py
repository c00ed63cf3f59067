"""Contract of a recipe's stage: it takes a student and returns another one.

Separate from the parts a stage works with (students, teachers, tasks) and from the rooms that implement stages
(`distill`, `compress`, `recipes`). A stage never changes the student it was given.

Class variables of a stage, each with a default: ``per_backend`` (True): whether its result depends on the runtime that
the student is meant for; ``requires`` and ``removes`` (empty): the properties a student must have and those it loses,
such as `FLOAT_WEIGHTS`, so that the order of a recipe is checked before anything trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.events import StageProgress
from edgekd.ir.numerics import Precision
from edgekd.records import Digest
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Task
from edgekd.teachers._protocol import Teacher

__all__ = [
    "FLOAT_WEIGHTS",
    "CutsEpochs",
    "DrawsImages",
    "Prepares",
    "Quantizes",
    "Stage",
    "StageContext",
    "Trains",
    "out_of_order",
]

FLOAT_WEIGHTS = frozenset({"float weights"})
"""Property of a student whose weights may still be trained: it has no encodings yet."""


@dataclass(frozen=True)
class StageContext:
    """Inputs of a stage. ``folder`` is its own, kept between runs: checkpoints go there."""

    task: Task
    teacher: Teacher | None
    device: Fingerprint | None  # whose instruction set calibration is for
    backend: Backend | None  # of the deployment; restricts the encodings
    folder: Path
    cache: Path  # shared by all stages and runs: teachers' outputs
    seed: int
    progress: Callable[[StageProgress], None]
    stop: Callable[[], bool]  # true when the person asked to stop: finish the current write, raise Interrupted
    late: Callable[[], bool] = lambda: False  # true when time is up: a training that keeps its best epoch ends with it
    # true: a training that keeps its best ends with its start, unless an epoch beats that beyond chance
    keeps_start: bool = False


class Stage(Protocol):
    """Step of a recipe. Constructed from its options (a frozen record) in the project file."""

    name: ClassVar[str]

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return every reason why it can't run, before any training."""
        ...

    def key(self, inputs: Digest) -> Digest:
        """Return the identity of this stage's result, given the identity of its inputs."""
        ...

    def run(self, student: Student, context: StageContext) -> Student:
        """Run the stage. Resumes from ``context.folder``; raises Interrupted when ``context.stop()``."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """Stage that trains on more images than the training split has, or on none of it."""

    def images(self, samples: int) -> int:
        """Return the number of images trained on, given ``samples`` in the training split."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """Stage with work that is the same for every student, done before a search counts its time."""

    def prepare(self, context: StageContext) -> None:
        """Do that work; ``run`` finds it done. Raises Interrupted when ``context.stop()``."""
        ...


@runtime_checkable
class Trains(Protocol):
    """Stage that trains, with its length: a search budgets it, and ranks candidates by a shorter one."""

    @property
    def passes(self) -> int:
        """Total number of passes through the training samples, over everything it trains."""
        ...

    def shortened(self, epochs: int) -> Stage:
        """Return a stage of at most ``epochs`` epochs that ranks students about as this one does."""
        ...


@runtime_checkable
class CutsEpochs(Protocol):
    """Stage that can do with less time and stay the same stage; another one is `shortened`."""

    def cut_to(self, share: float) -> Stage:
        """Return the same stage with this share of its epochs, at least one of each training."""
        ...


@runtime_checkable
class Quantizes(Protocol):
    """Stage that gives a student its precision. A search appends one to each candidate's recipe."""

    @property
    def quantizes_to(self) -> Precision:
        """The precision."""
        ...

    def calibrating(self) -> Stage:
        """Return the same stage without training, for students that keep their weights."""
        ...


def out_of_order(stages: Sequence[Stage]) -> list[tuple[int, Problem]]:
    """Return the stages that require what an earlier one removes: position and problem."""
    gone, found = dict[str, str](), list[tuple[int, Problem]]()
    for place, stage in enumerate(stages):
        for need in sorted(getattr(stage, "requires", frozenset[str]()) & gone.keys()):
            remedy = f"put {stage.name} before {gone[need]}" if gone[need] != stage.name else "leave one of the two out"
            found.append((place, Problem(f"{stage.name} needs {need}, and {gone[need]} before it leaves none", remedy)))
        gone.update(dict.fromkeys(getattr(stage, "removes", frozenset[str]()), stage.name))
    return found
