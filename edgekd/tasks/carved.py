"""Base of the tasks whose splits are carved out of labelled samples, once."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import PrivateAttr

from edgekd.records import Record
from edgekd.tasks._protocol import Split, SplitName, SplitSizes, TaskSpec
from edgekd.tasks.labelled import CarvedImages

__all__ = ["CarvedTask"]


class CarvedTask(Record):
    """Task that carves its splits. A subclass describes it, carves, and scores."""

    _carved: CarvedImages | None = PrivateAttr(None)
    _spec: TaskSpec | None = PrivateAttr(None)

    @property
    def spec(self) -> TaskSpec:
        """Input, heads, metric and the data's identity. Raises ConfigurationError for unexpected data."""
        if self._spec is None:
            self._spec = self._described()
        return self._spec

    @property
    def sizes(self) -> SplitSizes:
        """Number of samples in each split."""
        return self._data.sizes

    def split(self, name: SplitName) -> Split:
        """Return one split, the same on every machine."""
        return self._data.split(name)

    @abstractmethod
    def _described(self) -> TaskSpec:
        """Return what `spec` keeps."""

    @abstractmethod
    def _carve(self) -> CarvedImages:
        """Return the four splits."""

    @property
    def _data(self) -> CarvedImages:
        if self._carved is None:
            self._carved = self._carve()
        return self._carved
