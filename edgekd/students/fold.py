"""Folding: a BatchNorm that only ever sees one convolution's output becomes part of that convolution.

With running statistics m, v and affine g, b: ``W' = W g / sqrt(v + eps)``, ``c' = (c - m) g / sqrt(v + eps) + b``
(Jacob et al. 2018, section 3.2). What follows what is read from the exported graph, so that any plain PyTorch module
folds; a BatchNorm module that was folded becomes an `nn.Identity`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from edgekd.errors import ConfigurationError
from edgekd.students._protocol import Student

__all__ = ["fold_module", "folded"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PLAIN: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
}


def folded(student: Student) -> Student:
    """A copy in eval mode, every foldable BatchNorm folded. The student given is not changed."""
    module = fold_module(student.module, student.task.input.shape)
    return student.but(module=module)


def fold_module(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A folded copy of a module that takes (N, *shape) float32.

    Raises ConfigurationError where it can't be exported.
    """
    result = copy.deepcopy(module).eval()
    modules = dict(result.named_modules())
    if not any(isinstance(part, _NORMS) for part in modules.values()):
        return result
    for source, norm in _pairs(result, shape):
        _fold(result, source, norm)
    return result


def _pairs(module: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """(module path of a convolution or linear layer, path of the BatchNorm that takes all of its output)."""
    try:
        with torch.no_grad():
            program = torch.export.export(module, (torch.zeros(1, *shape),))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # torch's own errors are among these
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError.one(
            f"the module can't be turned into a graph: {reason}",
            "torch.export needs a forward pass without branches on values; check it with torch.export.export",
        ) from error
    modules = dict(module.named_modules())
    calls = Counter(_path(node) for node in program.graph.nodes if node.op == "call_function")
    found = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(modules.get(_path(node)), _NORMS):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_function" or len(source.users) != 1:
            continue
        producer, norm = modules.get(_path(source)), modules[_path(node)]
        if isinstance(producer, nn.Linear) and source.meta["val"].dim() != 2:
            continue  # the norm is over the second axis, and the layer's features are the last
        once = calls[_path(source)] == 1 == calls[_path(node)]
        if producer is not None and once and norm.running_mean is not None and _can_take(module, producer):
            found.append((_path(source), _path(node)))
    return found


def _fold(root: nn.Module, source: str, norm: str) -> None:
    layer, batch_norm = root.get_submodule(source), root.get_submodule(norm)
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    assert isinstance(batch_norm, _NORMS)
    assert batch_norm.running_mean is not None
    assert batch_norm.running_var is not None
    mean, variance = batch_norm.running_mean.double(), batch_norm.running_var.double()
    gain = torch.rsqrt(variance + batch_norm.eps)
    if batch_norm.affine:
        gain = gain * batch_norm.weight.detach().double()
    offset = batch_norm.bias.detach().double() if batch_norm.affine else torch.zeros_like(mean)
    bias = layer.bias.detach().double() if layer.bias is not None else torch.zeros_like(mean)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    along = [1] * layer.weight.dim()
    along[axis] = -1
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.detach().double() * gain.view(along)).to(dtype))
    layer.bias = nn.Parameter(((bias - mean) * gain + offset).to(dtype))
    parent, _, name = norm.rpartition(".")
    setattr(root.get_submodule(parent), name, nn.Identity())


def _can_take(root: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer may get another weight and bias: it is torch's own, and nobody else uses its weight."""
    if _PLAIN.get(type(layer)) is not type(layer).forward or (
        isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1
    ):
        return False
    return sum(value is layer.weight for _, value in root.named_parameters(remove_duplicate=False)) == 1


def _path(node: fx.Node) -> str:
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    return str(stack[-1]) if stack else ""
