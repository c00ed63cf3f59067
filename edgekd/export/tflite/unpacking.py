"""Several inputs of a TFLite file, in place of the packed samples that its graph was converted with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgekd.errors import ConfigurationError
from edgekd.export.tflite.flatbuffer import (
    add_reshape,
    add_tensor,
    constant_of,
    operator_name,
    schema,
    sizes_of,
)
from edgekd.tasks.named_inputs import NamedInput, spans

__all__ = ["restore_inputs"]


def restore_inputs(model: Any, named: Sequence[NamedInput]) -> None:
    """Replace the unpacking of packed samples (N, values) by the inputs themselves.

    Raises ConfigurationError where the converter has merged the unpacking into what reads it.
    """
    graph, types = model.subgraphs[0], schema().TensorType
    packed, inputs = int(graph.inputs[0]), list[int]()
    batch = int(sizes_of(graph.tensors[packed])[0])
    for one in named:
        inputs.append(
            add_tensor(model, one.name, [1, *one.shape], types.INT32 if one.dtype == "int32" else types.FLOAT32)
        )
        _give_batch(graph.tensors[inputs[-1]], batch)
    cuts, kept = dict[int, list[int]](), []  # values by their first place in a packed sample
    for operator in graph.operators:
        if packed not in map(int, operator.inputs):
            kept.append(operator)
        elif operator_name(model, operator) == "SHAPE":  # of which the batch's size is read
            operator.inputs = np.asarray([inputs[0]], np.int32)
            kept.append(operator)
        else:
            for start, value in _cuts(model, operator):
                cuts.setdefault(start, []).append(value)
    graph.operators = kept
    for (one, start, _), given in zip(spans(named), inputs, strict=True):
        for value in cuts.pop(start, []):
            _read_instead(model, value, given, one)
    if cuts:
        raise _merged("a cut")
    graph.inputs = np.asarray(inputs, np.int32)


def _give_batch(tensor: Any, batch: int) -> None:
    sizes = np.asarray([batch, *tensor.shape[1:]], np.int32)
    if batch < 0:
        tensor.shapeSignature = sizes
    else:
        tensor.shape = sizes


def _cuts(model: Any, operator: Any) -> Iterator[tuple[int, int]]:
    """First place of each value that an operator cuts out of packed samples, and the value's tensor."""
    graph, name = model.subgraphs[0], operator_name(model, operator)
    if name in ("SLICE", "STRIDED_SLICE"):
        begin = constant_of(model, graph.tensors[int(operator.inputs[1])])
        if begin is None:
            raise _merged(name)
        yield int(np.frombuffer(begin, np.int32)[1]), int(operator.outputs[0])
    elif name in ("SPLIT", "SPLIT_V"):
        start = 0
        for value in map(int, operator.outputs):
            yield start, value
            start += int(sizes_of(graph.tensors[value])[1])
    else:
        raise _merged(name)


def _read_instead(model: Any, value: int, given: int, one: NamedInput) -> None:
    """Let the readers of a value read the model's input, without what gave the value its type and shape."""
    graph, tensor = model.subgraphs[0], model.subgraphs[0].tensors[given]
    if int(np.prod(sizes_of(graph.tensors[value])[1:])) != one.size:
        raise _merged("a cut")
    gave = (["CAST"] if one.dtype == "int32" else []) + (["RESHAPE"] if len(one.shape) > 1 else [])
    for kind in gave:
        readers = [operator for operator in graph.operators if value in map(int, operator.inputs)]
        if len(readers) != 1 or operator_name(model, readers[0]) != kind:
            break
        graph.operators.remove(readers[0])
        value = int(readers[0].outputs[0])
    if graph.tensors[value].type != tensor.type:
        raise _merged("a change of type")
    if list(sizes_of(graph.tensors[value])) != list(sizes_of(tensor)):
        add_reshape(model, given, value, at=0)
        return
    for operator in graph.operators:
        operator.inputs = np.where(np.asarray(operator.inputs) == value, given, operator.inputs)
    graph.outputs = np.where(np.asarray(graph.outputs) == value, given, graph.outputs)


def _merged(what: str) -> ConfigurationError:
    return ConfigurationError.one(
        f"the TFLite converter has merged {what} into what reads the inputs", "use another format: onnx or openvino"
    )
