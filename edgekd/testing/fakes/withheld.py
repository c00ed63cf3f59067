"""A task some of whose splits nobody may see: proves that they are not looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import Score, Split, SplitName, Task, TaskSpec

__all__ = ["Withheld"]


class Withheld:
    """Another task, of which some splits are given away, and the others raise ``error``."""

    def __init__(
        self, task: Task, given: Sequence[SplitName] = ("validation",), error: type[Exception] = AssertionError
    ) -> None:
        self._task, self._given, self._error = task, tuple(given), error

    @property
    def spec(self) -> TaskSpec:
        """The other task's."""
        return self._task.spec

    def split(self, name: SplitName) -> Split:
        """Raises ``error`` where it is withheld."""
        if name not in self._given:
            raise self._error(f"the split `{name}` was asked for")
        return self._task.split(name)

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Score as the other task does."""
        return self._task.score(outputs, labels)
