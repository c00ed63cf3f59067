"""Learner: a module with its optimizer, the learning rate of every step, and the running average of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from edgekd.distill.average import Average

__all__ = ["Learner", "Sgd", "sgd", "tensors_of"]


class Learner:
    """State of a training: the module's tensors, the optimizer's moments of its parameters, and the running average.

    ``optimizer`` may also have other modules' parameters; those are saved by their own learner. ``rate`` gives the
    learning rate of a step, counted from 0; without it the optimizer keeps its own. ``clip`` is the largest norm of the
    gradient of all the optimizer's parameters (gradient clipping, Pascanu et al. 2013, arXiv 1211.5063).
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float] | None = None,
        average: float = 0.0,
        clip: float | None = None,
    ) -> None:
        self.module, self.optimizer = module, optimizer
        self.average = Average(module, average) if average else None
        self._rate, self._clip = rate, clip

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, number: int) -> None:
        """Do step ``number`` along the parameters' gradients, and drop them."""
        if self._clip is not None:
            learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(learning, self._clip)
        if self._rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(number)

    def descend(self, loss: Tensor, number: int) -> None:
        """Do step ``number`` along the gradient of a loss for this module's parameters only."""
        learning = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.grad = gradient
        self.update(number)

    def answering(self) -> nn.Module:
        """Return the module to validate and return: the running average if there is one."""
        if self.average is None:
            return self.module
        self.average.settle()
        return self.average.module

    def finite(self) -> bool:
        """Return whether all trained parameters are finite."""
        finite = [p.detach().isfinite().all() for p in self.module.parameters() if p.requires_grad]
        return not finite or bool(torch.stack(finite).all())

    def tensors(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint: ``value.NAME``, ``average.NAME``, and ``KIND.NAME`` of each moment."""
        found = {f"value.{name}": tensor for name, tensor in tensors_of(self.module).items()}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in tensors_of(self.average.module).items()}
        for name, parameter in self.module.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{kind}.{name}"] = value
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from a checkpoint's tensors. Raises KeyError if a value is missing."""
        for name, tensor in tensors_of(self.module).items():
            tensor.copy_(tensors[f"value.{name}"])
        if self.average is not None:
            for name, tensor in tensors_of(self.average.module).items():
                tensor.copy_(tensors[f"average.{name}"])
        parameters = dict(self.module.named_parameters())
        for key, value in tensors.items():
            kind, name = key.split(".", 1)
            if kind not in ("value", "average"):
                like = parameters[name] if value.shape == parameters[name].shape else value  # its layout too
                kept = torch.empty_like(like, requires_grad=False).copy_(value)
                self.optimizer.state[parameters[name]][kind] = kept


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and all buffers, including non-persistent ones. They share memory with the module."""
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


class Sgd(Protocol):
    """Options of SGD, as in training plans."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def momentum(self) -> float:
        """Nesterov momentum; 0 for none."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of tensors with more than one dimension."""
        ...


def sgd(module: nn.Module, plan: Sgd) -> torch.optim.SGD:
    """Return SGD over the trainable parameters; biases and normalisation have no weight decay."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and normalisation
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        momentum=plan.momentum,
        nesterov=plan.momentum > 0,
        fused=True,
    )
