"""Folding: a BatchNorm that only ever sees one convolution's output becomes part of that convolution.

With running statistics m, v and affine g, b: ``W' = W g / sqrt(v + eps)``, ``c' = (c - m) g / sqrt(v + eps) + b``
(Jacob et al. 2018, section 3.2). What follows what is read from the exported graph, so that any plain PyTorch module
folds; a BatchNorm module that was folded becomes an `nn.Identity`.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from edgekd.errors import ConfigurationError
from edgekd.students._protocol import Student

__all__ = ["fold_module", "folded"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PLAIN = {kind: kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)}


def folded(student: Student) -> Student:
    """A copy in eval mode, every foldable BatchNorm folded. The student given is not changed."""
    module = fold_module(student.module, student.task.input.shape)
    return student.but(module=module)


def fold_module(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A folded copy of a module that takes (N, *shape) float32. Raises ConfigurationError where it can't be exported."""
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
        plain = producer is not None and _PLAIN.get(type(producer)) is type(producer).forward
        once = calls[_path(source)] == 1 == calls[_path(node)]
        if plain and once and norm.running_mean is not None and not _is_shared(module, producer):
            found.append((_path(source), _path(node)))
    return found


def _fold(root: nn.Module, source: str, norm: str) -> None:
    layer, batch_norm = root.get_submodule(source), root.get_submodule(norm)
    assert isinstance(batch_norm, _NORMS)
    statistics = (
        batch_norm.running_mean,
        batch_norm.running_var,
        batch_norm.eps,
        batch_norm.weight,
        batch_norm.bias,
    )
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            weight, bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
        else:
            weight, bias = fuse_conv_bn_weights(
                layer.weight, layer.bias, *statistics, transpose=isinstance(layer, nn.ConvTranspose2d)
            )
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    parent, _, name = norm.rpartition(".")
    setattr(root.get_submodule(parent), name, nn.Identity())


def _is_shared(root: nn.Module, layer: nn.Module | None) -> bool:
    """Whether another module uses this layer's weight: folding would change that one too."""
    weight = getattr(layer, "weight", None)
    return sum(value is weight for _, value in root.named_parameters(remove_duplicate=False)) != 1


def _path(node: fx.Node) -> str:
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    return str(stack[-1]) if stack else ""
