"""Float32 body of a student in TFLite: converted once, channel-last, each tensor named after the student's.

The converter drops and renames nodes, so tensors are found *by value*: the file runs on one random sample with every
tensor kept, and each operator's output must equal the value of some node of the program, in order. Weights are found by
equality. An output that equals no node has no name, which static int8 refuses by the operator's name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.errors import ConfigurationError, first_line
from edgekd.export.encoded import float_nodes
from edgekd.export.matching import node_values, same_tensor
from edgekd.export.tflite.barriers import Guarded, remove_barriers
from edgekd.export.tflite.flatbuffer import (
    add_reshape,
    add_tensor,
    constant_of,
    operator_name,
    read_model,
    schema,
    sizes_of,
    write_model,
)
from edgekd.ir.operators import TFLITE, weight_axis
from edgekd.students.graph import Traced, is_decoding, spec_of
from edgekd.students.heads.deployed import DECODE, deployed
from edgekd.students.islands import kept_tensors

__all__ = ["DECODING", "TfliteBody", "convert_body", "run_shown", "to_tflite"]

DECODING = f"{DECODE}."
"""Prefix of the names of tensors that stay in float, whatever the student's precision."""


@dataclass(frozen=True)
class TfliteBody:
    """File with the identity of its tensors. Input is normalised float32, channels last."""

    data: bytes
    nodes: Mapping[int, tuple[str, ...]]  # tensor -> the program's nodes with its value, in order
    parameters: Mapping[int, str]  # weight tensor -> parameter name
    decoding: frozenset[int]  # tensors that decode raw outputs; their names begin with `DECODING`


def convert_body(traced: Traced, batch: int | Literal["dynamic"], apart: frozenset[str] = frozenset()) -> TfliteBody:
    """Convert; values of the nodes ``apart`` are kept from being merged into their readers.

    Raises ConfigurationError with the converter's reason where an operator can't be lowered.
    """
    import litert_torch

    given = traced.student.task.input
    sample = torch.from_numpy(given.random(0, 2 if batch == "dynamic" else batch))
    channels = sample.ndim > 2
    guarded = bool(traced.student.annotations.float_operators or apart)
    whole = Guarded(traced, apart) if guarded else deployed(traced.student.module.eval(), traced.student.task)
    module: Any = whole
    if channels:
        module = litert_torch.to_channel_last_io(module, args=[0]).eval()
    example = sample.movedim(1, -1).contiguous() if channels else sample
    free: Any = {0: torch.export.Dim("batch", min=1, max=4096)}
    each = (free, None) if guarded else (free,)
    shapes = (each,) if channels else each  # the channel-last wrapper takes its inputs as one tuple
    inputs = (example, torch.ones(1)) if guarded else (example,)
    logging.getLogger().setLevel(logging.ERROR)

    def converted(module: Any) -> bytes:
        with torch.no_grad():
            made = litert_torch.convert(module, inputs, dynamic_shapes=shapes if batch == "dynamic" else None)
        content: bytes = made.model_content()
        return content

    try:
        try:
            data = converted(module)
        except (RuntimeError, ValueError) as error:
            if not channels or "view" not in str(error):
                raise
            ordered = _InOrder(whole).eval()
            data = converted(litert_torch.to_channel_last_io(ordered, args=[0]).eval())
    except (RuntimeError, ValueError, TypeError, NotImplementedError, KeyError) as error:
        reason = first_line(error)
        raise ConfigurationError.one(
            f"the {traced.student.family} student can't be written as TFLite: {reason}",
            "use an operator that LiteRT has, or another format",
        ) from error
    model = read_model(data)
    if guarded:
        remove_barriers(model)
    _merge_transposed_means(model)
    _reshape_sums_of_one(model)
    values = node_values(traced, sample)
    nodes = _match(model, write_model(model), example.numpy(), traced, values)
    parameters = _match_weights(model, traced)
    decoding = _decoding(model, traced, nodes)
    _rename(model, traced, nodes, parameters, decoding)
    return TfliteBody(write_model(model), nodes, parameters, decoding)


class _InOrder(nn.Module):
    """Module with a contiguous input: ``Tensor.view`` refuses a channel-last one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, *more: Tensor) -> Any:
        return self.module(images.contiguous(), *more)


def _merge_transposed_means(model: Any) -> None:
    """Replace a mean over the axes of a channel-first view by the same mean over the channel-last tensor."""
    graph = model.subgraphs[0]
    readers: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers[int(index)] = readers.get(int(index), 0) + 1
    made = {int(op.outputs[0]): op for op in graph.operators}
    for operator in list(graph.operators):
        source = made.get(int(operator.inputs[0])) if len(operator.inputs) else None
        if operator_name(model, operator) != "MEAN" or source is None or operator.builtinOptions.keepDims:
            continue
        if operator_name(model, source) != "TRANSPOSE" or readers[int(source.outputs[0])] != 1:
            continue
        order, axes = (constant_of(model, graph.tensors[int(op.inputs[1])]) for op in (source, operator))
        if order is None or axes is None:
            continue
        permutation = np.frombuffer(order, np.int32)
        kept = [int(axis) for axis in permutation if axis not in permutation[np.frombuffer(axes, np.int32)]]
        if kept != sorted(kept):
            continue  # the remaining axes would come in another order
        moved = np.sort(permutation[np.frombuffer(axes, np.int32)]).astype(np.int32)
        constant = add_tensor(model, "mean/axes", [len(moved)], schema().TensorType.INT32, constant=moved)
        operator.inputs = np.asarray([int(source.inputs[0]), constant], np.int32)
        graph.operators.remove(source)


def _reshape_sums_of_one(model: Any) -> None:
    """Replace a sum or mean over axes of size 1 by a reshape: it computes nothing, and has its input's encoding.

    A mean over an image of one pixel is lowered to such a sum, whose value no node of the program has by itself.
    """
    graph = model.subgraphs[0]
    for place, operator in enumerate(list(graph.operators)):
        if operator_name(model, operator) not in ("SUM", "MEAN"):
            continue
        source, axes = (graph.tensors[int(index)] for index in operator.inputs)
        content, sizes = constant_of(model, axes), sizes_of(source)
        if content is not None and (sizes[np.frombuffer(content, np.int32)] == 1).all():
            graph.operators.remove(operator)
            add_reshape(model, int(operator.inputs[0]), int(operator.outputs[0]), at=place)


def _match(
    model: Any, data: bytes, example: NDArray[np.float32], traced: Traced, values: Mapping[str, NDArray[np.float32]]
) -> dict[int, tuple[str, ...]]:
    interpreter, floats = run_shown(data, [example]), float_nodes(traced)
    nodes = {node.name: node for node in traced.program.graph.nodes}
    source = next(name for name, key in traced.keys.items() if key == "input")
    rows = {name: spec_of(nodes[name]) for name in values if name != source}
    # a roll is lowered to several operators, and each of their results has its values in some order
    rearranging = {name for name, row in rows.items() if row.kind == "move" and row.encodes == "none"}
    found: dict[int, tuple[str, ...]] = {int(model.subgraphs[0].inputs[0]): (source,)}
    free = list(rows)

    def same(value: NDArray[np.float32], name: str) -> bool:
        return same_tensor(value, values[name], moved=name not in rearranging)

    # what computes comes first: a result may equal an input that is reshaped before (attention over a single patch)
    for operator in sorted(model.subgraphs[0].operators, key=lambda operator: _moves(operator_name(model, operator))):
        moves = _moves(operator_name(model, operator))
        ordered = free if moves else sorted(free, key=lambda name: rows[name].moves)
        for index in map(int, operator.outputs):
            if model.subgraphs[0].tensors[index].type != schema().TensorType.FLOAT32:
                continue
            value = interpreter.get_tensor(index)
            first = next((name for name in ordered if name in free and same(value, name)), None)
            chain = [] if first is None else [first]
            while chain:  # following operators that change nothing for this sample: a fused activation, a flatten
                after = [user.name for user in nodes[chain[-1]].users if user.name in free]
                if len(nodes[chain[-1]].users) != 1 or not after or after[0] in floats:
                    break  # a float operator counts by itself, and may reorder values
                if not same(value, after[0]):
                    break
                chain.append(after[0])
            for name in chain:
                free.remove(name)
            found[index] = tuple(chain)
    return found


def _moves(spelling: str) -> bool:
    """Whether an operator computes nothing."""
    return spelling in TFLITE and TFLITE[spelling].moves


def run_shown(data: bytes, inputs: Sequence[NDArray[Any]]) -> Any:
    """Run a file on its inputs with every intermediate value kept; returns the interpreter after the call."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    given = list(zip(interpreter.get_input_details(), inputs, strict=True))
    for detail, values in given:
        if tuple(detail["shape"]) != values.shape:
            interpreter.resize_tensor_input(detail["index"], values.shape)
    interpreter.allocate_tensors()
    for detail, values in given:
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return interpreter


def _match_weights(model: Any, traced: Traced) -> dict[int, str]:
    module = traced.student.module
    parameters = {name: value.detach().numpy() for name, value in module.named_parameters()}
    parameters |= {name: module.get_buffer(name).numpy() for name in kept_tensors(module) - parameters.keys()}
    found: dict[int, str] = {}
    for operator in model.subgraphs[0].operators:
        kind = operator_name(model, operator)
        if weight_axis(kind) is None and kind != "EMBEDDING_LOOKUP":
            continue
        index = int(operator.inputs[1])
        tensor = model.subgraphs[0].tensors[index]
        content = constant_of(model, tensor)
        if content is None or tensor.type != schema().TensorType.FLOAT32:
            continue
        stored = np.frombuffer(content, np.float32).reshape(tuple(tensor.shape))
        for name, value in parameters.items():
            laid = to_tflite(value, kind)
            if laid.shape == stored.shape and np.array_equal(laid, stored):
                found[index] = name
                break
    return found


def to_tflite(weights: NDArray[Any], kind: str) -> NDArray[Any]:
    """Convert a parameter to an operator's layout: OIHW becomes OHWI, or 1HWO for depthwise convolutions.

    That of a transposed convolution, IOHW, becomes OHWI. One over time (O, I, T) is one over an image of height 1.
    """
    if weights.ndim == 3:
        weights = weights[:, :, None]
    if weights.ndim != 4:
        return weights
    return weights.transpose((1, 2, 3, 0) if kind in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") else (0, 2, 3, 1))


def _decoding(model: Any, traced: Traced, nodes: Mapping[int, tuple[str, ...]]) -> frozenset[int]:
    """Tensors with the value of a decoder's node, and all computed from those, or from constants alone."""
    found: set[int] = set()
    if traced.student.task.plain:
        return frozenset()
    computed = {int(index) for index in model.subgraphs[0].inputs}
    for operator in model.subgraphs[0].operators:
        inputs, outputs = ({int(index) for index in indices} for indices in (operator.inputs, operator.outputs))
        own = any(is_decoding(traced.keys[name]) for index in outputs for name in nodes.get(index, ())[:1])
        if not any(nodes.get(index) for index in outputs):  # an operator that changes no value is found at its input
            own = any(is_decoding(traced.keys[nodes[index][-1]]) for index in inputs if nodes.get(index))
        if own or inputs & found or not inputs & computed:
            found |= outputs
        computed |= outputs
    return frozenset(found)


def _rename(
    model: Any,
    traced: Traced,
    nodes: Mapping[int, tuple[str, ...]],
    parameters: Mapping[int, str],
    decoding: frozenset[int],
) -> None:
    """Give tensors short names after the student's; the converter's are module paths, a third of a small file."""
    graph, taken = model.subgraphs[0], set()
    for index, tensor in enumerate(graph.tensors):
        chain = [node for node in nodes.get(index, ()) if index in decoding or not is_decoding(traced.keys[node])]
        name = parameters.get(index) or (traced.keys[chain[-1]] if chain else f"t{index}")
        if index in decoding and not name.startswith(DECODING):
            name = f"{DECODING}{name}"
        if name in taken:
            name = f"{name}#{index}"
        taken.add(name)
        tensor.name = name
