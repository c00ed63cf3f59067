"""Random weights under which every layer matters, and samples to go with them.

Initialisations made for training leave half of a network without effect: a LayerScale of 1e-6, an attention of 0.02,
statistics of a BatchNorm that has seen nothing. Here weights keep the scale of what passes, offsets are not zero, and
statistics are those of the network's own activations.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from zoo_models.catalogue import Animal

__all__ = ["samples_of", "seeded"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_BATCH = 32


def seeded(animal: Animal) -> nn.Module:
    """The model with its weights, in eval mode: the same wherever it is built."""
    module, _, function = animal.build.partition(":")
    torch.manual_seed(0)
    model: nn.Module = getattr(importlib.import_module(f"zoo_models.{module}"), function)()
    with torch.no_grad():
        for part in model.modules():
            for name, parameter in part.named_parameters(recurse=False):
                _fill(part, name, parameter)
        _count_statistics(model, samples_of(animal, _BATCH, seed=1))
    return model.eval()


def samples_of(animal: Animal, count: int, seed: int) -> list[Tensor]:
    """One tensor (N, ...) an input: normal numbers, or token ids."""
    random = torch.Generator().manual_seed(seed)
    if animal.tokens:
        return [torch.randint(0, animal.tokens, (count, *shape), generator=random) for shape in animal.inputs]
    return [torch.randn((count, *shape), generator=random) for shape in animal.inputs]


def _fill(part: nn.Module, name: str, parameter: Tensor) -> None:
    normalises = isinstance(part, (*_NORMS, nn.LayerNorm, nn.GroupNorm))
    if isinstance(part, nn.RNNBase):
        return  # uniform by its width, which is what matters
    if parameter.ndim > 1 and isinstance(part, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.kaiming_normal_(parameter)
    elif parameter.ndim > 1:  # embeddings, tokens, tables of positions
        nn.init.normal_(parameter, std=0.5)
    elif name == "bias":
        nn.init.normal_(parameter, std=0.1)
    else:  # scales
        nn.init.uniform_(parameter, 0.5, 1.5) if normalises else nn.init.uniform_(parameter, 0.2, 1.0)


def _count_statistics(model: nn.Module, samples: list[Tensor]) -> None:
    norms = [part for part in model.modules() if isinstance(part, _NORMS)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # those of this one batch
    model(*samples)
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1
