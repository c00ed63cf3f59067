"""`torch`: a person's own PyTorch model, built by a function that the options name.

Weights come from .safetensors, .npz or .pt (tensors only). ``mean`` and ``std`` are in raw units, one value or one for
each channel; without them the task's own normalisation is used. `regression` outputs are in the label's own units. The
digest covers the module's source file, the weights, the normalisation and the resizing; not files which that source
imports.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from edgekd.code_references import CodeReference, ExistingFile
from edgekd.errors import ConfigurationError
from edgekd.records import Digest, digest_file, digest_json
from edgekd.students.outputs import misfit, standardised_raw
from edgekd.students.unpacking import unpack_inputs
from edgekd.students.weights import built_module, source_file, state_digest
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.teachers.foreign import ForeignTeacher
from edgekd.teachers.packing import Packed, packed, packing_of

__all__ = ["TorchTeacher"]

_IMAGES = 4  # axes of a batch of images


class TorchTeacher(ForeignTeacher):
    """Options of `torch`. ``resize`` is the (height, width) the model was trained on, if it differs from the task's."""

    module: CodeReference
    weights: ExistingFile | None = None
    _module: nn.Module | None = PrivateAttr(None)
    _layout: torch.memory_format = PrivateAttr(torch.channels_last)  # of images and weights: most CPUs are faster so
    _several: InputSpec | None = PrivateAttr(None)  # of a task whose samples are several inputs
    _heads: tuple[HeadSpec, ...] = PrivateAttr(())  # of a task that isn't plain
    _packing: tuple[Packed, ...] = PrivateAttr(())

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.module.target.partition(":")[2]

    def digest(self) -> Digest:
        """Return the identity of source, weights (a file's, or those the function returns), normalisation, resize."""
        if self._digest is None:  # as in edgekd 0.1: outputs are cached under it
            fed = {"mean": self.mean, "std": self.std, "resize": self.resize}
            rows = [[head.name, head.kind, head.classes, head.mean, head.std] for head in self._heads]
            named = [] if self._several is None else [one.model_dump(mode="json") for one in self._several.named]
            more = {**({"rows": rows} if rows else {}), **({"inputs": named} if named else {})}
            self._digest = digest_json({**self._identity(), **fed, **more})
        return self._digest

    def bound(self, spec: TaskSpec) -> Self:
        """Return the teacher with the task's heads, and its normalisation if it has none of its own.

        Raises ConfigurationError if it would normalise or resize several inputs.
        """
        if spec.input.named and (self.mean not in (None, spec.input.mean) or self.resize is not None):
            raise ConfigurationError.one(
                f"teacher `{self.name}`: mean, std and resize are for one input, and the task has several",
                "leave them out: it gets the inputs as they are",
            )
        bound = super().bound(spec).model_copy()
        bound._heads, bound._packing = () if spec.plain else spec.heads, ()
        if not spec.plain:
            bound._digest = None  # order and units of outputs depend on the task
        if spec.input.named:
            bound._several, bound._module, bound._digest = spec.input, None, None
        return bound

    @property
    def packing(self) -> tuple[Packed, ...]:
        """Layout of raw outputs for a task with other heads than one of classification, once it has run."""
        return self._packing

    def network(self) -> nn.Module:
        """Return the person's module, frozen, in eval mode."""
        if self._module is None:
            self._module = built_module(self.module, self.weights)
            if self._several is not None:
                unpack_inputs(self._module, self._several)
            self._lay_out(self._module)
        return self._module

    def prepared(self, batch: Tensor) -> Tensor:
        """Return the batch normalised and resized, images channels last where the network takes them so.

        Raises ConfigurationError before it has mean and std.
        """
        views = super().prepared(batch)
        return views.contiguous(memory_format=self._layout) if views.ndim == _IMAGES else views

    def _load(self) -> None:
        self.network()

    def _answer(self, views: Tensor) -> Tensor:
        try:
            return self.rows(self.network()(views))
        except RuntimeError as error:
            # `Tensor.view` refuses to flatten a map whose channels are last
            if self._layout is torch.contiguous_format or "view size is not compatible" not in str(error):
                raise
        self._layout = torch.contiguous_format
        self._lay_out(self.network())
        return self.rows(self.network()(views.contiguous()))

    def _lay_out(self, network: nn.Module) -> None:
        with torch.inference_mode(False):  # gradients may pass through the network later
            for parameter in network.parameters():
                if parameter.ndim == _IMAGES:
                    parameter.data = parameter.data.contiguous(memory_format=self._layout)

    def rows(self, answers: object) -> Tensor:
        """Return logits; for several heads their raw outputs, packed in the task's order and units of training labels.

        Raises ConfigurationError for outputs of another form.
        """
        if self._heads:
            return self._packed(answers)
        return super().rows(answers)

    def _identity(self) -> dict[str, Any]:
        return {
            "function": self.module.target,
            "source": digest_file(source_file(self.module)),
            "weights": digest_file(self.weights) if self.weights else state_digest(self.network()),
        }

    def _packed(self, answers: object) -> Tensor:
        raw = standardised_raw(answers, self._heads)
        batch = len(next(iter(raw.values()))) if raw else 0
        if raw is None or (reason := misfit(raw, self._heads, batch)):
            raise ConfigurationError.one(
                f"teacher `{self.name}` returned {reason if raw else misfit(answers, self._heads, batch)}",
                "let the function return a model with raw outputs: see edgekd.students.heads",
            )
        self._packing = packing_of(raw)
        return packed(raw)
