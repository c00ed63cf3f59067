"""Modules that compute in float at every precision, because their constants need it."""

from __future__ import annotations

from torch import nn

__all__ = ["KeptFloat", "kept_tensors", "stays_float"]


class KeptFloat(nn.Module):
    """Base of modules whose operators are float islands.

    Its tensors have values that float16 represents exactly: files of every precision store them so, without loss.
    """


def stays_float(module: nn.Module, path: str) -> bool:
    """Return whether an operator of the submodule ``path`` is inside such a module.

    Operators of a program (.pt2) keep the paths of modules that it was exported from, which it hasn't any more.
    """
    owner: nn.Module | None = module
    for part in path.split(".") if path else ():
        if owner is None or isinstance(owner, KeptFloat):
            break
        owner = owner._modules.get(part)
    return isinstance(owner, KeptFloat)


def kept_tensors(module: nn.Module) -> frozenset[str]:
    """Return the names of parameters and buffers of such modules."""
    return frozenset(
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, KeptFloat)
        for name, _ in (*part.named_parameters(), *part.named_buffers())
    )
