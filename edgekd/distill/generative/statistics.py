"""BatchNorm statistics loss: distance of a batch from the teacher's running statistics (DeepInversion, arXiv
1912.08795).

    sum over layers of  || mean(batch) - running mean ||_2 + || variance(batch) - running variance ||_2

The running statistics are all that a trained network keeps of its images. The variance is the biased one, which
BatchNorm normalises with; a layer keeps the unbiased one, which is nearly the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

__all__ = ["Observed", "classifier_of", "moments", "norms_of"]


def norms_of(network: nn.Module) -> Sequence[_BatchNorm]:
    """Return the layers with running statistics, in order of construction."""
    return [part for part in network.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]


def classifier_of(network: nn.Module) -> nn.Linear | None:
    """Return the last linear layer; None if there is none."""
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    return linear[-1] if linear else None


class Observed:
    """Record the inputs of a network's BatchNorm layers and its last linear layer.

    A context manager: hooks are always removed.
    """

    def __init__(self, network: nn.Module, statistics: bool = True, features: bool = False) -> None:
        self._norms = norms_of(network) if statistics else ()
        self._classifier = classifier_of(network) if features else None
        self._terms: list[Tensor] = []
        self._features: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Observed:
        self._handles = [norm.register_forward_pre_hook(self._at_norm) for norm in self._norms]
        if self._classifier is not None:
            self._handles.append(self._classifier.register_forward_pre_hook(self._at_classifier))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def statistics(self) -> Tensor:
        """Return the sum over all layers of the last forward pass, and clear it."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def features(self) -> Tensor:
        """Return the input of the last linear layer (N, D). Raises RuntimeError if no forward pass reached it."""
        if self._features is None:
            raise RuntimeError("no forward pass reached a linear layer")
        taken, self._features = self._features, None
        return taken

    def _at_norm(self, norm: nn.Module, taken: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        offset, variance = moments(taken[0], norm.running_mean)
        self._terms.append(_norm(offset) + _norm(variance - norm.running_var))

    def _at_classifier(self, _: nn.Module, taken: tuple[Any, ...]) -> None:
        self._features = taken[0].flatten(1)


class _Moments(torch.autograd.Function):
    """Hand-written moments: `torch.var_mean` over these axes takes ten times as long on a CPU (torch 2.13)."""

    @staticmethod
    def forward(context: Any, batch: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
        centred = batch - _along(origin, batch)  # so that the difference of squares below loses no digits
        axes = [axis for axis in range(batch.ndim) if axis != 1]
        offset = centred.mean(axes, dtype=torch.float32)
        variance = centred.square().mean(axes, dtype=torch.float32) - offset.square()
        context.save_for_backward(centred, offset)
        return offset, variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        centred, offset = context.saved_tensors
        count = centred.numel() // centred.shape[1]
        slope = gradients[1] * (2.0 / count)
        level = gradients[0] / count - slope * offset
        return torch.addcmul(_along(level, centred), centred, _along(slope, centred)), None


def moments(batch: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean less ``origin`` and biased variance by channel, each (C,) float32, of (N, C, ...), any float type."""
    offset, variance = _Moments.apply(batch, origin)  # type: ignore[no-untyped-call]
    return offset, variance


def _along(channel: Tensor, batch: Tensor) -> Tensor:
    """Broadcast values of channels (C,) to the batch's type and rank."""
    return channel.to(batch.dtype).reshape(1, -1, *(1,) * (batch.ndim - 2))


def _norm(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector)
    return length
