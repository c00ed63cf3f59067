"""`torch`: a PyTorch model of the person's own, built by the function they name.

Weights come from .safetensors or .npz (never pickle). ``mean`` and ``std`` are in raw units, one value or one a
channel; without them the task's own normalisation is used. The digest covers the module's source file, the weights,
the normalisation and the resizing; not files which that source imports.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import PositiveInt, PrivateAttr, model_validator
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import ConfigurationError
from edgekd.records import Digest, Record, digest_file, digest_json
from edgekd.references import CodeReference, ExistingFile
from edgekd.tasks._protocol import HeadSpec, TaskSpec
from edgekd.teachers.normalise import check_pair, normalised
from edgekd.teachers.packing import Packed, layout_of, packed, raw_of
from edgekd.teachers.weights import built_module, source_file, state_digest

__all__ = ["TorchTeacher"]


class TorchTeacher(Record):
    """Options of `torch`. ``resize`` is the (height, width) the model was trained on, where it differs."""

    module: CodeReference
    weights: ExistingFile | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[PositiveInt, PositiveInt] | None = None
    _module: nn.Module | None = PrivateAttr(None)
    _classes: int | None = PrivateAttr(None)
    _heads: tuple[HeadSpec, ...] = PrivateAttr(())  # of a task that isn't plain
    _layout: tuple[Packed, ...] = PrivateAttr(())
    _digest: Digest | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        check_pair(self.mean, self.std)
        return self

    @property
    def name(self) -> str:
        """The function's name."""
        return self.module.target.partition(":")[2]

    @property
    def classes(self) -> int:
        """How many classes it tells apart, as its first answer showed. Raises ConfigurationError before that."""
        if self._classes is None:
            raise ConfigurationError.one(f"teacher `{self.name}` has not answered yet", "bind it to a task first")
        return self._classes

    def digest(self) -> Digest:
        """Identity of source, weights (a file's, or those the function returns), normalisation and resizing."""
        if self._digest is None:
            self._digest = digest_json(
                {
                    "function": self.module.target,
                    "source": digest_file(source_file(self.module)),
                    "weights": digest_file(self.weights) if self.weights else state_digest(self._loaded()),
                    "mean": self.mean,
                    "std": self.std,
                    "resize": self.resize,
                }
            )
        return self._digest

    def bound(self, spec: TaskSpec) -> TorchTeacher:
        """With the task's normalisation where it has none of its own."""
        if self.mean is not None and spec.plain:
            return self
        bound = self.but(mean=spec.input.mean, std=spec.input.std) if self.mean is None else self.but()
        bound._module, bound._heads = self._module, () if spec.plain else spec.heads
        return bound

    @property
    def layout(self) -> tuple[Packed, ...]:
        """How raw answers of a task with other heads than one of classification are packed, once it has answered."""
        return self._layout

    def logits(self, batch: Tensor) -> Tensor:
        """Answers (N, classes), float32, without gradient, for raw-unit batches (N, C, H, W)."""
        self._loaded()  # not in inference mode: its weights may have to be differentiated through later
        with torch.inference_mode():
            answers = self._answered(batch)
        return answers.clone()  # a tensor of inference mode can't take part in a loss

    def network(self) -> nn.Module:
        """The person's module, frozen, in eval mode."""
        return self._loaded()

    def prepared(self, batch: Tensor) -> Tensor:
        """Normalised, resized where asked for, channels last. Raises ConfigurationError before it has mean and std."""
        if self.mean is None or self.std is None:
            raise ConfigurationError.one(
                f"teacher `{self.name}` has no mean and std", "give them in raw units, or bind it to a task"
            )
        views = normalised(batch, self.mean, self.std)
        if self.resize is not None and tuple(views.shape[2:]) != self.resize:
            views = functional.interpolate(views, self.resize, mode="bilinear", antialias=True)
        return views.contiguous(memory_format=torch.channels_last)

    def _answered(self, batch: Tensor) -> Tensor:
        answers = self._loaded()(self.prepared(batch))
        if self._heads:
            return self._packed(answers)
        if not isinstance(answers, Tensor) or answers.ndim != 2 or len(answers) != len(batch):
            shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
            raise ConfigurationError.one(
                f"teacher `{self.name}` answered {shape} to {len(batch)} images, and (N, classes) was expected",
                "let the function return a model that gives logits alone",
            )
        self._classes = answers.shape[1]
        return answers.float()

    def _packed(self, answers: object) -> Tensor:
        raw = raw_of(answers, self._heads)
        if raw is None:
            names = ", ".join(head.name for head in self._heads)
            raise ConfigurationError.one(
                f"teacher `{self.name}` answered {type(answers).__name__}, which tells nothing for {names}",
                "let the function return a model that gives raw answers: see edgekd.students.heads",
            )
        self._layout = layout_of(raw)
        rows = packed(raw)
        self._classes = rows.shape[1]
        return rows

    def _loaded(self) -> nn.Module:
        if self._module is None:
            self._module = built_module(self.module, self.weights)
            for parameter in self._module.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self._module
