"""Logits in a classifier's output, which may be a tensor, a tuple, a mapping, or an object with fields.

One reader for students, teachers and export. A mapping or an object (Transformers' ``ModelOutput``, a dataclass) is
read by its ``logits``, else by its only float tensor of two axes; a tuple or list by its first item.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["answering_logits", "described", "logits_in"]

_NAME = "logits"


def logits_in(answer: object) -> Tensor | None:
    """Return the logits tensor; None if the output has none, or several and no ``logits``."""
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, (tuple, list)) and not hasattr(answer, "_fields"):
        return answer[0] if answer and isinstance(answer[0], Tensor) else None
    parts = _parts(answer)
    if isinstance(found := parts.get(_NAME), Tensor):
        return found
    tables = [
        part for part in parts.values() if isinstance(part, Tensor) and part.dim() == 2 and part.is_floating_point()
    ]
    return tables[0] if len(tables) == 1 else None


def described(answer: object) -> str:
    """Describe an output for a message: the shape of a tensor, the names in a mapping or an object, else the type."""
    if isinstance(answer, Tensor):
        return str(tuple(answer.shape))
    if isinstance(answer, (tuple, list)) and not hasattr(answer, "_fields"):
        return f"a {type(answer).__name__} of {len(answer)}"
    parts = _parts(answer)
    return f"{type(answer).__name__} with {', '.join(map(str, parts))}" if parts else type(answer).__name__


def answering_logits(module: nn.Module) -> nn.Module:
    """Register a hook so that the same module returns only its logits, if `logits_in` finds them.

    Names of layers and weights stay: a wrapper would change them all.
    """
    module.register_forward_hook(_only_logits)
    return module


def _only_logits(_module: nn.Module, _inputs: Any, answer: Any) -> Any:
    found = logits_in(answer)
    return answer if found is None else found


def _parts(answer: object) -> dict[Any, Any]:
    if isinstance(answer, Mapping):
        return dict(answer)
    if hasattr(answer, "_fields"):  # a named tuple
        return {name: getattr(answer, name) for name in answer._fields}
    if dataclasses.is_dataclass(answer):
        return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    return {}
