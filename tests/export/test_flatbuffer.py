"""TFLite files as objects: what is added to one, as other programs read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.export._protocol import ExportOptions
from edgekd.export.io_wrapper import IOWrapper
from edgekd.export.tflite.flatbuffer import (
    add_operator,
    add_tensor,
    metadata_of,
    operator_name,
    read_model,
    schema,
    set_metadata,
    write_model,
)
from edgekd.export.tflite.io_wrapper import add_io_wrapper
from tests.export.conftest import student_of


def empty() -> Any:
    """A model of one subgraph without operators."""
    model, graph = schema().ModelT(), schema().SubGraphT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema().BufferT()], [], [graph]
    graph.tensors, graph.operators = [], []
    graph.inputs = graph.outputs = np.asarray([add_tensor(model, "x", [1, 4], schema().TensorType.FLOAT32)], np.int32)
    return model


def test_metadata_of_one_name_is_stored_once() -> None:
    model = empty()
    set_metadata(model, "other", b"kept")
    for content in (b"first", b"second, longer"):
        set_metadata(model, "facts", content)
    again = read_model(write_model(model))
    assert [entry.name.decode() for entry in again.metadata] == ["other", "facts"]
    assert metadata_of(again) == {"other": b"kept", "facts": b"second, longer"}


def test_operators_of_codes_above_127_keep_old_readers_out() -> None:
    """schema.fbs: the code of 8 bits, all that old runtimes read, is then PLACEHOLDER_FOR_GREATER_OP_CODES."""
    model, codes = empty(), schema().BuiltinOperator
    outputs = [add_tensor(model, name, [1, 4], schema().TensorType.FLOAT32) for name in ("logistic", "gelu")]
    add_operator(model, "LOGISTIC", [0], [outputs[0]], at=0)
    add_operator(model, "GELU", [outputs[0]], [outputs[1]], at=1)
    model.subgraphs[0].outputs = np.asarray(outputs[1:], np.int32)
    again = read_model(write_model(model))
    assert [operator_name(again, operator) for operator in again.subgraphs[0].operators] == ["LOGISTIC", "GELU"]
    assert [code.deprecatedBuiltinCode for code in again.operatorCodes] == [
        codes.LOGISTIC,
        codes.PLACEHOLDER_FOR_GREATER_OP_CODES,
    ]


def test_the_outside_goes_around_the_first_graph() -> None:
    """schema.fbs: of several subgraphs the first is the main model; others are bodies of its operators."""
    model, student, types = empty(), student_of(), schema().TensorType
    body = schema().SubGraphT()
    body.tensors, body.operators = [schema().TensorT()], []
    body.tensors[0].name, body.tensors[0].type, body.tensors[0].buffer = "body", types.FLOAT32, 0
    body.inputs = body.outputs = np.asarray([0], np.int32)
    model.subgraphs.append(body)
    graph = model.subgraphs[0]
    graph.tensors[0].shape = np.asarray([1, 16, 16, 3], np.int32)
    graph.outputs = np.asarray([add_tensor(model, "y", [1, 10], types.FLOAT32)], np.int32)
    add_operator(model, "RESHAPE", [0], [int(graph.outputs[0])], at=0)
    add_io_wrapper(model, IOWrapper(student, ExportOptions(input="uint8")))
    assert [graph.tensors[int(at)].name for at in (*graph.inputs, *graph.outputs)] == ["image", "logits"]
    assert operator_name(model, graph.operators[0]) == "DEQUANTIZE"
    assert (body.tensors[0].name, body.operators) == ("body", [])
