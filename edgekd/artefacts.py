"""Artefacts: files that a runtime loads, with their formats and backends.

A backend is a runtime with a provider or delegate (``litert/xnnpack``). A runtime reads certain formats; an artefact is
one file in one format with the weights it keeps in others, known by its SHA-256.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import model_serializer, model_validator

from edgekd.errors import UnknownName
from edgekd.external_weights import external_files
from edgekd.records import Digest, Record, digest_bytes, digest_file

__all__ = ["Artefact", "Backend", "Format"]


class Format(str, Enum):
    """File format of exported models. A new one needs its row in ``_FILES``, below."""

    ONNX = "onnx"
    TFLITE = "tflite"
    OPENVINO = "openvino"

    @classmethod
    def of(cls, path: Path) -> Format:
        """Format of a file by its suffix. Raises UnknownName on a suffix no runtime reads."""
        by_suffix = {member.suffix: member for member in cls}
        if path.suffix not in by_suffix:
            raise UnknownName("model format", path.suffix or path.name, by_suffix)
        return by_suffix[path.suffix]

    @property
    def suffix(self) -> str:
        """Suffix of the file that a runtime is given: ``.onnx``."""
        return _FILES[self].suffix

    @property
    def converter(self) -> tuple[str, ...]:
        """Modules imported to write a file. They take seconds, so the conversion worker imports them once."""
        return _FILES[self].converter

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files of a model named ``path``, that one first. They need not exist.

        An ONNX file may name further ones: see `Artefact.files`.
        """
        return (path, *(path.with_suffix(suffix) for suffix in _FILES[self].beside))


class _Files(NamedTuple):
    suffix: str  # of the file that names the model
    beside: tuple[str, ...]  # suffixes of further files of the same stem
    converter: tuple[str, ...]


_FILES: Mapping[Format, _Files] = {
    Format.ONNX: _Files(".onnx", (), ("onnx", "onnxscript")),
    Format.TFLITE: _Files(".tflite", (), ("litert_torch", "ai_edge_quantizer.quantizer")),
    Format.OPENVINO: _Files(".xml", (".bin",), ("onnx", "onnxscript", "openvino")),  # weights are in the .bin
}


class Backend(Record):
    """Backend: a runtime and a provider, written ``runtime/provider`` in files; recorded in `edgekd.ir.backends`."""

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
        return f"{self.runtime}/{self.provider}" if self.provider else self.runtime


class Artefact(Record):
    """Model file. ``size_bytes`` counts every file it needs: an OpenVINO .xml and its .bin, an ONNX file's external
    weights.
    """

    path: Path
    format: Format
    sha256: Digest
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> Artefact:
        """Describe a file by its suffix and content. The digest covers all files that it needs together.

        Raises UnknownName on a suffix no runtime reads, ConfigurationError where an ONNX file's weights are missing or
        lie outside its folder, and OSError.
        """
        file_format = Format.of(path)
        beside = _beside(file_format, path)
        digest, size = digest_file(path), path.stat().st_size
        if beside:
            digest = digest_bytes("".join([digest, *map(digest_file, beside)]).encode())
            size += sum(file.stat().st_size for file in beside)
        return cls(path=path, format=file_format, sha256=digest, size_bytes=size)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of this model, the one that names it first. Raises as `of` does."""
        return (self.path, *_beside(self.format, self.path))

    def named(self, stem: str) -> Mapping[str, Path]:
        """Files by their names in a folder where the model is called ``stem``; the model comes first.

        External files of an ONNX model are named in the model, and so the same everywhere.
        """
        if self.format is Format.ONNX:
            beside = {file.relative_to(self.path.parent).as_posix(): file for file in self.files[1:]}
            return {_free(stem, self.path.suffix, beside): self.path, **beside}
        return {f"{stem}{file.suffix}": file for file in self.files}


def _beside(file_format: Format, path: Path) -> tuple[Path, ...]:
    if file_format is Format.ONNX:
        return tuple(file for file in external_files(path) if file != path)
    return tuple(file for file in file_format.files(path)[1:] if file.exists())


def _free(stem: str, suffix: str, taken: Collection[str]) -> str:
    while f"{stem}{suffix}" in taken:
        stem += "-"
    return f"{stem}{suffix}"
