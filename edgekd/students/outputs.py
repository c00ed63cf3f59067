"""Readers of a model's output: logits of a classifier, or raw outputs by name for other heads.

Students, teachers and export use them. An output is a tensor, a tuple, a mapping, or an object with fields
(Transformers' ``ModelOutput``, a dataclass).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from edgekd.agent.faults import is_shortage, is_want_of_memory
from edgekd.students.heads.many import raw_names
from edgekd.students.heads.regression import standardised
from edgekd.students.unpacking import unpack_inputs
from edgekd.tasks._protocol import HeadSpec, TaskSpec

__all__ = ["MAPS", "answering", "answering_logits", "described", "logits_in", "misfit", "raw_of", "standardised_raw"]

_NAME = "logits"
_BOX = 4  # numbers of a box
MAPS = ("segmentation", "detection")
"""Kinds of head with outputs (N, channels, h, w)."""


def logits_in(answer: object) -> Tensor | None:
    """Return the logits tensor; None if the output has none, or several and no ``logits``.

    A mapping or an object is read by its ``logits``, else by its only float tensor of two axes; a tuple or list by its
    first item.
    """
    if isinstance(answer, Tensor):
        return answer
    if _is_sequence(answer):
        return answer[0] if answer and isinstance(answer[0], Tensor) else None
    parts = _parts(answer)
    if isinstance(found := parts.get(_NAME), Tensor):
        return found
    tables = [
        part for part in parts.values() if isinstance(part, Tensor) and part.dim() == 2 and part.is_floating_point()
    ]
    return tables[0] if len(tables) == 1 else None


def raw_of(answer: object, heads: Sequence[HeadSpec]) -> dict[str, Tensor] | None:
    """Convert an output to raw outputs by name (`raw_names`); None if it has another form.

    Accepts a mapping or an object with these names (for a single one also ``logits``), or tensors in their order: in a
    tuple, or as the only fields of an object.
    """
    names = [name for head in heads for name in raw_names(head)]
    if isinstance(answer, Tensor):
        answer = (answer,)
    if _is_sequence(answer):
        parts = dict(zip(names, answer, strict=True)) if len(answer) == len(names) else {}
    else:
        parts = _parts(answer)
        if len(names) == 1 and names[0] not in parts and _NAME in parts:
            parts = {names[0]: parts[_NAME]}
        tensors = [part for part in parts.values() if isinstance(part, Tensor)]
        if not isinstance(answer, Mapping) and not set(names) <= set(parts) and len(tensors) == len(names):
            parts = dict(zip(names, tensors, strict=True))
    found = {name: parts[name] for name in names if isinstance(parts.get(name), Tensor)}
    return found if len(found) == len(names) else None


def standardised_raw(answer: object, heads: Sequence[HeadSpec]) -> dict[str, Tensor] | None:
    """Return `raw_of` with numbers standardised as in training: a person's network predicts in the labels' units.

    Numbers of a shape that their head can't have stay as they are: `misfit` describes them.
    """
    raw = raw_of(answer, heads)
    if raw is None:
        return None
    for head in heads:
        if head.kind == "regression" and raw[head.name].shape[1:] == (head.classes,):
            raw[head.name] = standardised(head, raw[head.name].float())
    return raw


def misfit(answer: object, heads: Sequence[HeadSpec], batch: int) -> str:
    """Describe the first raw output of a shape that its head can't have; ``""`` if all fit.

    Expected are (N, classes), and maps of any size: (N, classes, h, w) of segmentation, (N, classes, h, w) and
    (N, 4, h, w) of detection.
    """
    raw = raw_of(answer, heads)
    if raw is None:
        names = [f"`{name}`" for head in heads for name in raw_names(head)]
        expected = f"{', '.join(names)} were" if len(names) > 1 else f"{names[0]} or `{_NAME}` was"
        return f"{described(answer)}, where {expected} expected"
    for head in heads:
        axes = 4 if head.kind in MAPS else 2
        for name, channels in zip(raw_names(head), (head.classes, _BOX), strict=False):
            shape = tuple(raw[name].shape)
            if len(shape) != axes or shape[:2] != (batch, channels):
                expected = f"(N, {channels}, h, w)" if axes > 2 else f"(N, {channels})"
                return f"{shape} for {head.kind} `{name}`, where {expected} was expected"
        sizes = {tuple(raw[name].shape[2:]) for name in raw_names(head)}
        if len(sizes) > 1:
            return f"maps of {' and '.join(map(str, sorted(sizes)))} for {head.kind} `{head.name}`, which need one size"
    return ""


def described(answer: object) -> str:
    """Describe an output for a message: the shape of a tensor, the names in a mapping or an object, else the type."""
    if isinstance(answer, Tensor):
        return str(tuple(answer.shape))
    if _is_sequence(answer):
        return f"a {type(answer).__name__} of {len(answer)}"
    parts = _parts(answer)
    return f"{type(answer).__name__} with {', '.join(map(str, parts))}" if parts else type(answer).__name__


def answering_logits(module: nn.Module) -> nn.Module:
    """Register a hook so that the same module returns only its logits, if `logits_in` finds them.

    Names of layers and weights stay: a wrapper would change them all.
    """
    module.register_forward_hook(_only_logits)
    return module


def answering(module: nn.Module, spec: TaskSpec) -> nn.Module:
    """Register hooks so that the same module takes and returns what a student of the task does.

    It takes packed samples of several inputs (`unpack_inputs`).
    For a plain task these are logits, else raw outputs by name, with numbers standardised as in training: by the linear
    layer that makes them, whose weights change in place, so that numbers of different size can share one encoding in an
    integer file; else behind it.
    """
    unpack_inputs(module, spec.input)
    if spec.plain:
        return answering_logits(module)
    left = [head for head in spec.heads if not _standardise_layer(module, head, spec)]
    module.register_forward_hook(_OnlyRaw(spec.heads, left))
    return module


def _standardise_layer(module: nn.Module, head: HeadSpec, spec: TaskSpec) -> bool:
    """Fold the standardisation of a head's numbers into the linear layer that returns them.

    False, with the weights as they were, if no layer does, or if another output depends on it too.
    """
    if head.kind != "regression":
        return False
    batch = torch.from_numpy(spec.input.random(0, 2))
    made: list[tuple[nn.Linear, Tensor]] = []
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda layer, _, answer: made.append((layer, answer))) for layer in layers]
    try:
        with torch.no_grad():
            raw = raw_of(module(batch), spec.heads)
    except Exception as error:  # a person's code may raise anything: reported where its outputs are checked
        if is_want_of_memory(error) or is_shortage(error):
            raise
        return False
    finally:
        for hook in hooks:
            hook.remove()
    found = [layer for layer, answer in made if raw is not None and answer is raw[head.name]]
    if raw is None or len(found) != 1 or found[0].out_features != head.classes:
        return False
    layer, mean, std = found[0], torch.tensor(head.mean), torch.tensor(head.std)
    before = copy.deepcopy(layer)
    with torch.no_grad():
        if "bias" not in dict(layer.named_parameters(recurse=False)):
            layer.bias = nn.Parameter(torch.zeros(head.classes))
        layer.bias.copy_((layer.bias - mean) / std)
        layer.weight.div_(std[:, None])
        after = raw_of(module(batch), spec.heads) or {}
    raw[head.name] = standardised(head, raw[head.name])
    if all(torch.allclose(after[name], raw[name], rtol=1e-3, atol=1e-3) for name in raw):
        return True
    with torch.no_grad():
        layer.weight.copy_(before.weight)
    layer.bias = before.bias
    return False


def _only_logits(_module: nn.Module, _inputs: Any, answer: Any) -> Any:
    found = logits_in(answer)
    return answer if found is None else found


class _OnlyRaw:
    """Hook that returns the raw outputs of heads, of ``left`` ones standardised."""

    def __init__(self, heads: Sequence[HeadSpec], left: Sequence[HeadSpec]) -> None:
        self._heads, self._left = heads, left

    def __call__(self, _module: nn.Module, _inputs: Any, answer: Any) -> Any:
        found = raw_of(answer, self._heads)
        return answer if found is None else found | (standardised_raw(found, self._left) or {})


def _is_sequence(answer: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(answer, (tuple, list)) and not hasattr(answer, "_fields")


def _parts(answer: object) -> dict[Any, Any]:
    if isinstance(answer, Mapping):
        return dict(answer)
    if hasattr(answer, "_fields"):  # a named tuple
        return {name: getattr(answer, name) for name in answer._fields}
    if dataclasses.is_dataclass(answer):
        return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    return {}
