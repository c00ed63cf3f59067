"""Flatbuffers of TFLite files: read, edited and written as objects. The schema is the one ai-edge-litert ships."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "add_buffer",
    "add_operator",
    "add_reshape",
    "add_tensor",
    "constant_of",
    "metadata_of",
    "operator_name",
    "read_model",
    "schema",
    "set_metadata",
    "set_operator_version",
    "sizes_of",
    "write_model",
]

_IDENTIFIER = b"TFL3"
_NOT_OUTSIDE = 1
"""Offsets 0 and 1 mean that the content is in the flatbuffer itself (schema.fbs, ``Buffer``)."""


_ABSENT = -1
"""Index in the place of an optional input that an operator doesn't have."""


@cache
def schema() -> Any:
    """Generated schema module."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def read_model(data: bytes) -> Any:
    """Parse a file's content as a ``ModelT``, constants behind the flatbuffer included.

    Raises ValueError when it is not a TFLite file.
    """
    import struct

    if data[4:8] != _IDENTIFIER:
        raise ValueError("it has no TFL3 mark")
    try:
        model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(data, 0))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    for buffer in model.buffers or []:
        if buffer.offset > _NOT_OUTSIDE:
            buffer.data = _outside(data, buffer.offset, buffer.size)
            buffer.offset = buffer.size = 0
    for operator in (operator for graph in model.subgraphs or [] for operator in graph.operators or []):
        if operator.largeCustomOptionsOffset > _NOT_OUTSIDE:
            operator.customOptions = _outside(data, operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    return model


def _outside(data: bytes, offset: int, size: int) -> NDArray[np.uint8]:
    """Content behind the flatbuffer, where writers put large constants (ai-edge-quantizer from 256 KiB on)."""
    if offset + size > len(data):
        raise ValueError(f"it is damaged: content up to byte {offset + size}, and it has {len(data)}")
    return np.frombuffer(data, np.uint8, size, offset)


def write_model(model: Any) -> bytes:
    """Serialize a ``ModelT``, equal vectors stored once.

    ``model`` loses, in place, the tensors that no operator makes or reads and the buffers that no tensor has:
    ai-edge-quantizer's calibration fails on such tensors.
    """
    _drop_unread_tensors(model)
    _drop_unread_buffers(model)
    builder = _sharing_builder()(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


@cache
def _sharing_builder() -> Any:
    import flatbuffers

    class Sharing(flatbuffers.Builder):  # type: ignore[misc]  # the package is untyped
        """Builder that writes equal vectors once: zero points, scales that a weight and its bias both have."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self._written: dict[tuple[str, bytes], Any] = {}

        def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802  # flatbuffers' own name
            key = (x.dtype.str, x.tobytes())
            if key not in self._written:
                self._written[key] = super().CreateNumpyVector(x)
            return self._written[key]

    return Sharing


def add_buffer(model: Any, data: bytes) -> int:
    """Append a buffer; returns its index."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def set_metadata(model: Any, name: str, data: bytes) -> None:
    """Set one metadata entry, replacing the one of that name."""
    for entry in model.metadata or []:
        if _text(entry.name) == name:
            model.buffers[entry.buffer].data = np.frombuffer(data, np.uint8)
            return
    entry = schema().MetadataT()
    entry.name, entry.buffer = name, add_buffer(model, data)
    model.metadata = [*(model.metadata or []), entry]


def metadata_of(model: Any) -> dict[str, bytes]:
    """Metadata entries by name."""
    found = {}
    for entry in model.metadata or []:
        data = model.buffers[entry.buffer].data
        found[_text(entry.name)] = b"" if data is None else bytes(bytearray(data))
    return found


def operator_name(model: Any, operator: Any) -> str:
    """Schema name of an operator's kind: ``CONV_2D``."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _operator_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


def constant_of(model: Any, tensor: Any) -> bytes | None:
    """Constant content of a tensor; None where it is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else bytes(bytearray(data))


def add_tensor(
    model: Any,
    name: str,
    shape: list[int],
    kind: int,
    *,
    like: Any = None,
    constant: NDArray[np.generic] | None = None,
    scale: float | None = None,
    zero_point: int = 0,
) -> int:
    """Append a tensor to the only subgraph; returns its index. ``like`` gives its dynamic dimensions."""
    tensor = schema().TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.asarray(shape, np.int32), kind
    tensor.hasRank = True
    if like is not None and like.shapeSignature is not None:
        tensor.shapeSignature = np.asarray(like.shapeSignature, np.int32)
    # buffer 0 is the empty one by convention
    tensor.buffer = 0 if constant is None else add_buffer(model, np.ascontiguousarray(constant).tobytes())
    if scale is not None:
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale = np.asarray([scale], np.float32)
        tensor.quantization.zeroPoint = np.asarray([zero_point], np.int64)
    subgraph = model.subgraphs[0]
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def add_operator(
    model: Any, name: str, inputs: list[int], outputs: list[int], *, at: int, version: int = 1, options: Any = None
) -> None:
    """Insert an operator at a place in the execution order."""
    operator = schema().OperatorT()
    operator.opcodeIndex = _code(model, name, version)
    operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema().BuiltinOptions, kind)
        operator.builtinOptions = options
    model.subgraphs[0].operators.insert(at, operator)


def add_reshape(model: Any, source: int, result: int, *, at: int) -> None:
    """Insert a reshape of one tensor to the sizes of another."""
    sizes = sizes_of(model.subgraphs[0].tensors[result])
    shape = add_tensor(model, f"shape{result}", [len(sizes)], schema().TensorType.INT32, constant=sizes)
    options = schema().ReshapeOptionsT()
    options.newShape = sizes
    add_operator(model, "RESHAPE", [source, shape], [result], at=at, options=options)


def sizes_of(tensor: Any) -> NDArray[np.int32]:
    """Sizes (rank,) of a tensor; -1 where one is dynamic."""
    return np.asarray(tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature, np.int32)


def set_operator_version(model: Any, operator: Any, version: int) -> None:
    """Require at least this version of an operator's kernel."""
    operator.opcodeIndex = _code(model, operator_name(model, operator), version)


def _code(model: Any, name: str, version: int) -> int:
    builtin = getattr(schema().BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version >= version:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _drop_unread_tensors(model: Any) -> None:
    for number, graph in enumerate(model.subgraphs):
        maps = [
            entry
            for signature in model.signatureDefs or []
            if signature.subgraphIndex == number
            for entry in (*(signature.inputs or []), *(signature.outputs or []))
        ]
        lists = [(graph, "inputs"), (graph, "outputs")]
        lists += [(op, name) for op in graph.operators for name in ("inputs", "outputs", "intermediates")]
        lists = [(holder, name) for holder, name in lists if getattr(holder, name) is not None]
        used = {int(index) for holder, name in lists for index in getattr(holder, name)}
        kept = sorted((used | {entry.tensorIndex for entry in maps}) - {_ABSENT})
        place = {_ABSENT: _ABSENT} | {old: new for new, old in enumerate(kept)}
        for holder, name in lists:
            setattr(holder, name, np.asarray([place[int(index)] for index in getattr(holder, name)], np.int32))
        for entry in maps:
            entry.tensorIndex = place[entry.tensorIndex]
        graph.tensors = [graph.tensors[old] for old in kept]


def _drop_unread_buffers(model: Any) -> None:
    holders = [tensor for graph in model.subgraphs for tensor in graph.tensors] + list(model.metadata or [])
    kept = sorted({0, *(holder.buffer for holder in holders)})
    place = {old: new for new, old in enumerate(kept)}
    for holder in holders:
        holder.buffer = place[holder.buffer]
    model.buffers = [model.buffers[old] for old in kept]


@cache
def _operator_names() -> dict[int, str]:
    return {value: name for name, value in vars(schema().BuiltinOperator).items() if isinstance(value, int)}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
