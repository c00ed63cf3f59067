"""Metadata inside model files: a model found alone still identifies itself.

Texts by name, under ``edgekd``: ONNX ``metadata_props`` (``edgekd.NAME``), one JSON buffer in TFLite's metadata, and
OpenVINO's ``rt_info``. Reading needs no runtime, and executes nothing of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, Place

__all__ = ["read_facts", "write_facts"]

_KEY = "edgekd"


def write_facts(path: Path, facts: Mapping[str, str]) -> Artefact:
    """Write metadata into a model file, replacing its own; returns the updated file.

    Raises ConfigurationError on a file that isn't a model, UnknownName on another suffix.
    """
    file_format = Artefact.of(path).format
    try:
        {Format.ONNX: _write_onnx, Format.TFLITE: _write_tflite, Format.OPENVINO: _write_openvino}[file_format](
            path, facts
        )
    except _DAMAGE as error:
        raise _not_a_model(path, file_format, error) from error
    return Artefact.of(path)


def read_facts(path: Path) -> dict[str, str]:
    """Read edgekd's metadata of a model file; none in a file of another origin. Raises as `write_facts`."""
    file_format = Artefact.of(path).format
    readers = {Format.ONNX: _read_onnx, Format.TFLITE: _read_tflite, Format.OPENVINO: _read_openvino}
    try:
        return readers[file_format](path)
    except _DAMAGE as error:
        raise _not_a_model(path, file_format, error) from error


# errors of protobuf, flatbuffers, XML and JSON readers on foreign bytes (protobuf's DecodeError is a
# ValueError only in name: it is caught where protobuf is imported)
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, ElementTree.ParseError)


def _not_a_model(path: Path, file_format: Format, error: Exception) -> ConfigurationError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ConfigurationError.one(
        f"is not a readable {file_format.value} model: {reason}", "export it again", Place(str(path))
    )


def _load_onnx(path: Path) -> object:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _write_onnx(path: Path, facts: Mapping[str, str]) -> None:
    import onnx

    model = _load_onnx(path)
    assert isinstance(model, onnx.ModelProto)
    kept = [(prop.key, prop.value) for prop in model.metadata_props if not prop.key.startswith(f"{_KEY}.")]
    del model.metadata_props[:]
    for key, value in [*kept, *((f"{_KEY}.{name}", value) for name, value in sorted(facts.items()))]:
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _read_onnx(path: Path) -> dict[str, str]:
    model = _load_onnx(path)
    properties = {prop.key: prop.value for prop in model.metadata_props}  # type: ignore[attr-defined]  # a ModelProto
    return {key.removeprefix(f"{_KEY}."): value for key, value in properties.items() if key.startswith(f"{_KEY}.")}


def _write_tflite(path: Path, facts: Mapping[str, str]) -> None:
    from edgekd.export.tflite.flatbuffer import read_model, set_metadata, write_model

    model = read_model(path.read_bytes())
    set_metadata(model, _KEY, json.dumps(dict(sorted(facts.items())), ensure_ascii=False).encode())
    path.write_bytes(write_model(model))


def _read_tflite(path: Path) -> dict[str, str]:
    from edgekd.export.tflite.flatbuffer import metadata_of, read_model

    found = metadata_of(read_model(path.read_bytes())).get(_KEY)
    return {} if found is None else {str(name): str(value) for name, value in json.loads(found).items()}


def _write_openvino(path: Path, facts: Mapping[str, str]) -> None:
    # the XML is edited rather than read and saved by the runtime, which would write the weights again
    tree = ElementTree.fromstring(path.read_bytes())
    info = tree.find("rt_info")
    if info is None:
        info = ElementTree.SubElement(tree, "rt_info")
    old = info.find(_KEY)
    if old is not None:
        info.remove(old)
    ours = ElementTree.SubElement(info, _KEY)
    for name, value in sorted(facts.items()):
        ElementTree.SubElement(ours, name, {"value": value})
    path.write_bytes(b'<?xml version="1.0"?>\n' + ElementTree.tostring(tree))


def _read_openvino(path: Path) -> dict[str, str]:
    ours = ElementTree.fromstring(path.read_bytes()).find(f"rt_info/{_KEY}")
    return {} if ours is None else {item.tag: item.get("value", "") for item in ours}
