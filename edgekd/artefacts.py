"""What a runtime loads, and where: backends, file formats, precisions, artefacts.

A backend is a runtime with a provider or delegate (``litert/xnnpack``). A runtime reads certain formats; an artefact
is one file in one format, known by its SHA-256.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import model_serializer, model_validator

from edgekd.errors import UnknownName
from edgekd.records import Digest, Record, digest_file

__all__ = ["BACKENDS", "Artefact", "Backend", "Format", "Precision"]


class Format(str, Enum):
    """A file format of exported models."""

    ONNX = "onnx"
    TFLITE = "tflite"
    OPENVINO = "openvino"  # the .xml; its weights lie beside it as .bin


class Precision(str, Enum):
    """A rung of the precision ladder: how weights are stored and how arithmetic is done."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # half-precision weights; arithmetic as the runtime chooses
    DYNAMIC_INT8 = "dynamic-int8"  # int8 weights; activations quantized at run time, or not at all
    INT8 = "int8"  # static: weights and activations int8


class Backend(Record):
    """A runtime and how it executes. Written ``runtime/provider`` in files."""

    runtime: str
    provider: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        runtime, _, provider = value.partition("/")
        return {"runtime": runtime, "provider": provider}

    @model_serializer
    def _to_text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{self.runtime}/{self.provider}"

    @property
    def formats(self) -> tuple[Format, ...]:
        """Formats this backend loads, the native one first. Raises UnknownName on a backend edgekd can't drive."""
        try:
            return BACKENDS[str(self)]
        except KeyError:
            raise UnknownName("backend", str(self), BACKENDS) from None


BACKENDS: dict[str, tuple[Format, ...]] = {
    "litert/xnnpack": (Format.TFLITE,),
    "litert/builtin": (Format.TFLITE,),
    "onnxruntime/cpu": (Format.ONNX,),
    "openvino/cpu": (Format.OPENVINO, Format.ONNX, Format.TFLITE),
}
"""Every backend this version can drive, and the formats each loads."""


class Artefact(Record):
    """One model file. ``size_bytes`` counts every file it needs (an OpenVINO .xml and its .bin)."""

    path: Path
    format: Format
    sha256: Digest
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> Artefact:
        """Describe a file by its suffix and content. Raises UnknownName on a suffix no runtime reads, and OSError.

        An OpenVINO model is named by its .xml; the digest covers .xml and .bin together.
        """
        suffixes = {".onnx": Format.ONNX, ".tflite": Format.TFLITE, ".xml": Format.OPENVINO}
        if path.suffix not in suffixes:
            raise UnknownName("model format", path.suffix or path.name, suffixes)
        digest, size = digest_file(path), path.stat().st_size
        weights = path.with_suffix(".bin")
        if path.suffix == ".xml" and weights.exists():
            from edgekd.records import digest_bytes

            digest = digest_bytes(f"{digest}{digest_file(weights)}".encode())
            size += weights.stat().st_size
        return cls(path=path, format=suffixes[path.suffix], sha256=digest, size_bytes=size)
