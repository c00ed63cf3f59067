"""Base of teachers with an external network: input preparation and checks of its outputs."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Any, Self

import torch
from pydantic import PositiveInt, PrivateAttr, model_validator
from torch import Tensor
from torch.nn import functional

from edgekd.code_references import quiet_imports
from edgekd.errors import ConfigurationError, MissingError, first_line
from edgekd.records import Digest, Record, digest_json
from edgekd.students.outputs import described, logits_in
from edgekd.tasks._protocol import TaskSpec
from edgekd.tasks.normalisation import check_pair
from edgekd.teachers.normalise import normalised

__all__ = ["ForeignTeacher", "Normal", "in_raw_units", "needed"]

Normal = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation in raw units, one value or one a channel."""


class ForeignTeacher(Record):
    """Teacher with a normalisation (its own, else the task's) and the (height, width) it was trained on."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[PositiveInt, PositiveInt] | None = None
    _classes: int | None = PrivateAttr(None)
    _digest: Digest | None = PrivateAttr(None)
    _ids: bool = PrivateAttr(False)  # it is bound to a task of texts

    @model_validator(mode="after")
    def _paired(self) -> Self:
        check_pair(self.mean, self.std)
        return self

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in reports."""

    @property
    def classes(self) -> int:
        """Number of classes, from its first outputs. Raises ConfigurationError before these."""
        if self._classes is None:
            raise ConfigurationError.one(f"teacher `{self.name}` has not run yet", "bind it to a task first")
        return self._classes

    def digest(self) -> Digest:
        """Return the identity of its weights and input preparation."""
        if self._digest is None:
            self._digest = digest_json(
                {"kind": type(self).__name__, "weights": self._identity(), "fed": self._feeding(), "version": 1}
            )
        return self._digest

    def bound(self, spec: TaskSpec) -> Self:
        """Return the teacher with the model's own normalisation, else the task's, unless the options give one."""
        ids = spec.input.text is not None
        if self.mean is not None and not ids:
            return self
        mean, std = (None if ids else self._own(spec)) or (spec.input.mean, spec.input.std)
        bound = self.model_copy(update={"mean": mean, "std": std})  # keeps what is already loaded
        bound._ids = ids
        bound._digest = None
        return bound

    def logits(self, batch: Tensor) -> Tensor:
        """Return logits (N, classes), float32, without gradient, for raw-unit batches (N, C, H, W)."""
        self._load()
        with torch.inference_mode():
            answers = self._answer(self.prepared(batch))
        if answers.ndim != 2 or len(answers) != len(batch):
            raise ConfigurationError.one(
                f"teacher `{self.name}` returned {tuple(answers.shape)} for {len(batch)} images, "
                "and (N, classes) was expected",
                "give a model that classifies whole images",
            )
        self._classes = answers.shape[1]
        return answers.float().clone()  # a tensor of inference mode can't take part in a loss

    def prepared(self, batch: Tensor) -> Tensor:
        """Return the batch normalised and resized (N, C, H, W), differentiable; or token ids, int64.

        Raises ConfigurationError before it has mean and std.
        """
        if self._ids:
            return batch.to(torch.int64)
        if self.mean is None or self.std is None:
            raise ConfigurationError.one(
                f"teacher `{self.name}` has no mean and std", "give them in raw units, or bind it to a task"
            )
        return self._resized(normalised(batch, self.mean, self.std))

    def rows(self, answers: object) -> Tensor:
        """Convert a PyTorch network's outputs to the format of `logits`: (N, classes) float32.

        Raises ConfigurationError.
        """
        found = logits_in(answers)
        if found is None:
            raise ConfigurationError.one(
                f"teacher `{self.name}` returned {described(answers)}, and logits (N, classes) were expected",
                "let the function return a model whose output is logits, or has a field `logits`",
            )
        return found.float()

    def _resized(self, views: Tensor) -> Tensor:
        if self.resize is None or tuple(views.shape[2:]) == self.resize:
            return views
        return functional.interpolate(views, self.resize, mode="bilinear", antialias=True)

    def _load(self) -> None:  # optional, for PyTorch networks
        """Load the network outside of inference mode: gradients may pass through it later."""

    @abstractmethod
    def _answer(self, views: Tensor) -> Tensor:
        """Return logits (N, classes) for prepared views."""

    @abstractmethod
    def _identity(self) -> Any:
        """Return JSON values that change whenever the weights do."""

    def _feeding(self) -> Any:
        return [self.mean, self.std, self.resize]

    def _own(self, spec: TaskSpec) -> Normal | None:  # noqa: ARG002  # optional
        """Return the normalisation that comes with the model; None if it has none."""
        return None


def in_raw_units(mean: Any, std: Any, spec: TaskSpec) -> Normal:
    """Convert mean and deviation for values 0 to 1, the convention of most libraries, to this task's raw units."""
    low, high = spec.input.raw_range
    width = float(high) - float(low)
    return tuple(float(low) + float(value) * width for value in mean), tuple(float(value) * width for value in std)


def needed(package: str, extra: str) -> Any:
    """Import an optional package. Raises MissingError with the command that installs it."""
    install = f"install it with: pip install 'edgekd[{extra}]'"
    quiet_imports()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingError(f"a teacher of kind `{extra}` needs the package `{error.name}`", install) from error
    except Exception as error:  # compiled for another torch, or for another CPU: its packages raise anything
        reason = first_line(error)
        raise MissingError(
            f"the package `{package}`, which a teacher of kind `{extra}` needs, can't be imported: {reason}", install
        ) from error
