"""Packed samples of several inputs, given to a module as the arguments of its ``forward``."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.errors import ConfigurationError
from edgekd.ir.encoding import UNPACKING
from edgekd.tasks._protocol import InputSpec
from edgekd.tasks.named_inputs import NamedInput

__all__ = ["inputs_of", "unpack_inputs"]


def unpack_inputs(module: nn.Module, given: InputSpec) -> nn.Module:
    """Let the same module take packed samples (N, values), where ``given`` has named inputs.

    Names of layers and weights stay: a wrapper would change them all. Raises ConfigurationError for a module whose
    ``forward`` was replaced on the instance.
    """
    if not given.named:
        return module
    if "forward" in vars(module):
        raise ConfigurationError.one(
            f"`{type(module).__name__}` has a forward of the instance, which several inputs can't be given to",
            "define forward in its class; return the model from before torch.compile",
        )
    required, known = inputs_of(module), inputs_of(module, optional=True)
    module.add_module(UNPACKING, _Unpacking(given.named, required, known))
    if isinstance(module, fx.GraphModule):  # whose copies have a forward made of their graph
        _rewrite(module, [one.name for one in given.named])
    else:
        module.forward = MethodType(_forward, module)  # a copy of the module gets its own: deepcopy binds it anew
    return module


def inputs_of(module: nn.Module, optional: bool = False) -> list[str]:
    """Return the names of required inputs, or with the optional ones, whether it takes them packed or not."""
    if UNPACKING in module._modules:
        unpacking = module.get_submodule(UNPACKING)
        assert isinstance(unpacking, _Unpacking)
        return unpacking.known if optional else unpacking.required
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # made in C, without a signature: the call itself will fail
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and (optional or p.default is inspect.Parameter.empty)]


def _forward(module: nn.Module, packed: Tensor) -> Any:
    return type(module).forward(module, **module.get_submodule(UNPACKING)(packed))


def _rewrite(module: fx.GraphModule, names: Sequence[str]) -> None:
    """Give a graph one packed input in the place of those named."""
    graph, old = module.graph, [node for node in module.graph.nodes if node.op == "placeholder"]
    with graph.inserting_before(old[0]):
        packed = graph.placeholder("packed")
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        made = graph.call_module(UNPACKING, (packed,))
        for node in old:
            if node.target in names:
                node.replace_all_uses_with(graph.call_function(operator.getitem, (made, node.target)))
                graph.erase_node(node)
    module.recompile()


class _Unpacking(nn.Module):
    """Inputs by name of packed samples (N, values)."""

    def __init__(self, named: Sequence[NamedInput], required: list[str], known: list[str]) -> None:
        super().__init__()
        self.named, self.required, self.known = tuple(named), required, known

    def forward(self, packed: Tensor) -> dict[str, Tensor]:
        found = torch.split(packed, [one.size for one in self.named], dim=1)
        return {one.name: _shaped(one, values) for one, values in zip(self.named, found, strict=True)}

    def extra_repr(self) -> str:  # converted graphs are kept by a module's text
        return ", ".join(map(str, self.named))


def _shaped(one: NamedInput, values: Tensor) -> Tensor:
    if one.dtype == "int32":
        values = values.to(torch.int32)
    return values if len(one.shape) == 1 else torch.unflatten(values, 1, one.shape)
