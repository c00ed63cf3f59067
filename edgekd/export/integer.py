"""Fully integer check: operators of a file that compute in floating point, for targets without a floating-point unit.

Converting an integer file's float32 input or output counts: ask for uint8 or int8 inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.artefacts import Format
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.operators import ONNX
from edgekd.ir.support import ONNXRUNTIME_INTEGER, ONNXRUNTIME_WIDENED
from edgekd.records import Digest

__all__ = ["FLOAT_OPERATORS", "INSPECTABLE", "MOVING", "float_figure", "float_operators"]

FLOAT_OPERATORS = "operators.float"
"""Metric that a fully integer target limits to none."""

INSPECTABLE = (Format.TFLITE, Format.ONNX)
"""Formats whose files show which operators compute in float."""

_NAMED = 4


def float_operators(path: Path) -> tuple[str, ...] | None:
    """Operators of a model file that compute in float, as ``KIND (tensor)``, in order; none where it is fully integer.

    In TFLite an operator with a floating-point input or output. In ONNX an operator between DequantizeLinear and
    QuantizeLinear is integer where ONNX Runtime has an integer kernel of its kind; these two count where a value really
    changes between float and integer. None for OpenVINO: its plug-in chooses the kernels when it compiles, for the
    processor it then runs on. Raises UnknownName on another suffix, OSError.
    """
    file_format = Format.of(path)
    if file_format is Format.OPENVINO:
        return None
    return tuple({Format.TFLITE: _tflite, Format.ONNX: _onnx}[file_format](path))


def float_figure(operators: Sequence[str], sha256: Digest) -> Figure:
    """Number of float operators as a `Figure` to check limits against; its method names the first few."""
    named = ", ".join(operators[:_NAMED]) + (", ..." if len(operators) > _NAMED else "")
    return Figure(
        metric=FLOAT_OPERATORS,
        value=float(len(operators)),
        unit="",
        kind=EvidenceKind.ANALYTIC,
        subject=sha256,
        method="operators that compute in float, counted in the file" + (f": {named}" if named else ""),
    )


def _tflite(path: Path) -> list[str]:
    from edgekd.export.tflite.flatbuffer import operator_name, read_model, schema

    model = read_model(path.read_bytes())
    types = schema().TensorType
    floats = {types.FLOAT32, types.FLOAT16, types.FLOAT64}
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[int(i)] for i in (*operator.inputs, *operator.outputs) if int(i) >= 0]
            if any(tensor.type in floats for tensor in tensors):
                name = graph.tensors[int(operator.outputs[0])].name
                name = name.decode() if isinstance(name, bytes) else name
                found.append(f"{operator_name(model, operator)} ({name})")
    return found


_CLAMPS = frozenset(kind for kind, row in ONNX.items() if row.kind == "clamp" and row.encodes == "own")
"""Clamps between an integer kernel and QuantizeLinear: ONNX Runtime fuses them into the kernel's limits."""

MOVING = frozenset(kind for kind, row in ONNX.items() if row.transparent)
"""ONNX operators whose results are values of their input, and zero for padding."""

_WITH_BOUNDS = MOVING | {"Clip"}  # constants among their inputs are shapes and bounds, not values


def _onnx(path: Path) -> list[str]:
    import onnx

    graph = onnx.load_model_from_string(path.read_bytes()).graph
    constants = {tensor.name for tensor in graph.initializer}
    types = onnx.TensorProto
    ends = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    float_ends = {name for name, kind in ends.items() if kind == types.FLOAT}
    integers = {name for name, kind in ends.items() if kind in (types.UINT8, types.INT8)}
    widened: set[str] = set()  # float in name only: integers behind DequantizeLinear, or before the Relu of a kernel
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    left: list[str] = []  # outputs that are computed in float
    for node in graph.node:  # in order: whatever a node reads has been looked at
        kind, result = node.op_type, node.output[0]  # the parts of a Split are alike
        given = [name for name in node.input if name and not (kind in _WITH_BOUNDS and name in constants)]
        if kind == "QuantizeLinear":
            integers.add(result)
        elif kind == "DequantizeLinear":
            widened.add(result)
        elif kind in MOVING and integers.issuperset(given):
            integers.update(node.output)
        elif (
            kind in _CLAMPS | (MOVING - ONNXRUNTIME_WIDENED) | ONNXRUNTIME_INTEGER
            and widened.issuperset(given)
            and result not in float_ends
            and ({"QuantizeLinear"} | _CLAMPS).issuperset(readers.get(result, ()))
        ):
            widened.update(node.output)
        else:
            left.append(result)
    # a pair around an integer kernel is its scale. One is at work before or behind a float value, and where nothing
    # stands between dequantizing and quantizing (uint8 becomes int8): ONNX Runtime has no integer kernel for that
    floats = {*left, *float_ends}
    floats |= {name for node in graph.node if node.output[0] in left for name in node.input} - constants
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    floats |= {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"} & dequantized
    return [
        f"{node.op_type} ({node.output[0]})"
        for node in graph.node
        if node.output[0] in left
        or (node.op_type == "QuantizeLinear" and node.input[0] in floats)
        or (node.op_type == "DequantizeLinear" and node.output[0] in floats and node.input[0] not in constants)
    ]
