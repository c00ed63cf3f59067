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
from edgekd.tasks.input_parts import InputPart

__all__ = ["give_parts"]


def give_parts(model: Any, parts: Sequence[InputPart]) -> None:
    """Replace the parting of packed samples (N, values) by one input a part.

    Raises ConfigurationError where the converter has merged the parting into what reads it.
    """
    graph = model.subgraphs[0]
    packed = int(graph.inputs[0])
    values, kept = dict[int, list[int]](), []  # by their first place in a packed sample
    for operator in graph.operators:
        if packed not in map(int, operator.inputs):
            kept.append(operator)
            continue
        for start, result in _cuts(model, operator):
            values.setdefault(start, []).append(result)
    graph.operators, inputs, start = kept, [], 0
    for part in parts:
        kind = schema().TensorType.INT32 if part.dtype == "int32" else schema().TensorType.FLOAT32
        inputs.append(add_tensor(model, part.name, [1, *part.shape], kind))
        _give_batch(graph.tensors[inputs[-1]], sizes_of(graph.tensors[packed])[0])
        for result in values.pop(start, []):
            _read_instead(model, result, inputs[-1])
        start += part.size
    if values:
        raise _merged("a cut")
    graph.inputs = np.asarray(inputs, np.int32)


def _give_batch(tensor: Any, batch: int) -> None:
    sizes = [batch, *tensor.shape[1:]]
    if batch < 0:
        tensor.shapeSignature = np.asarray(sizes, np.int32)
    else:
        tensor.shape = np.asarray(sizes, np.int32)


def _cuts(model: Any, operator: Any) -> Iterator[tuple[int, int]]:
    """First value of each part that an operator cuts out of packed samples, and the tensor that it becomes."""
    graph, name = model.subgraphs[0], operator_name(model, operator)
    if name in ("SLICE", "STRIDED_SLICE"):
        begin = constant_of(model, graph.tensors[int(operator.inputs[1])])
        if begin is None:
            raise _merged(name)
        yield int(np.frombuffer(begin, np.int32)[1]), int(operator.outputs[0])
    elif name in ("SPLIT", "SPLIT_V"):
        start = 0
        for result in map(int, operator.outputs):
            yield start, result
            start += int(sizes_of(graph.tensors[result])[1])
    else:
        raise _merged(name)


def _read_instead(model: Any, value: int, given: int) -> None:
    """Let the readers of a part's values read the model's input instead, without what only gave it type and shape."""
    graph, tensor = model.subgraphs[0], model.subgraphs[0].tensors[given]
    wanted = [int(size) for size in sizes_of(tensor)]
    while True:
        sizes = [int(size) for size in sizes_of(graph.tensors[value])]
        if graph.tensors[value].type == tensor.type and sizes == wanted:
            for operator in graph.operators:
                operator.inputs = np.where(np.asarray(operator.inputs) == value, given, operator.inputs)
            graph.outputs = np.where(np.asarray(graph.outputs) == value, given, graph.outputs)
            return
        readers = [operator for operator in graph.operators if value in map(int, operator.inputs)]
        if len(readers) != 1 or operator_name(model, readers[0]) not in ("RESHAPE", "CAST"):
            break
        graph.operators.remove(readers[0])
        value = int(readers[0].outputs[0])
    if graph.tensors[value].type != tensor.type:
        raise _merged("a change of type")
    add_reshape(model, given, value, at=0)


def _merged(what: str) -> ConfigurationError:
    return ConfigurationError.one(
        f"the TFLite converter has merged {what} into what reads the inputs", "use another format: onnx or openvino"
    )
