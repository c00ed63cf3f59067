"""The contract of a recipe's stage: it takes a student and returns another one.

A contract of its own, between the parts a stage works with (students, teachers, tasks) and the rooms that implement
stages (`distill`, `compress`, `recipes`). A stage never changes the student it was given.
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
from edgekd.records import Digest
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Task
from edgekd.teachers._protocol import Teacher

__all__ = ["DrawsImages", "Prepares", "Stage", "StageContext", "Trains"]


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
