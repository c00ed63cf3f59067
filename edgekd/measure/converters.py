"""Converters of this computer, which write a student's file: version of each, or why it can't be used.

Importing them takes seconds, and a broken one may crash or hang, so it is done in a process of its own: ``python -m
edgekd.measure.converters NAME ...`` answers a JSON line each. Model hubs are switched off there.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NamedTuple

from edgekd.agent.telemetry import keep_silent

__all__ = ["CONVERTERS", "LATE", "ConverterPackage", "FoundConverter", "find_converters"]

_DEADLINE_S = 120.0
LATE = f"not imported within {_DEADLINE_S:g} s"
"""Problem of a converter that may be intact: the machine was too busy to import it in time."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}


class ConverterPackage(NamedTuple):
    """Package needed for exporting: module to import, package to install, format written."""

    module: str
    package: str
    writes: str


CONVERTERS = {
    "litert_torch": ConverterPackage("litert_torch", "litert-torch", ".tflite"),
    "ai_edge_quantizer": ConverterPackage("ai_edge_quantizer.quantizer", "ai-edge-quantizer", "8-bit .tflite"),
    "onnxscript": ConverterPackage("onnxscript", "onnxscript", ".onnx, and .xml by way of it"),
    "openvino convert": ConverterPackage("openvino.frontend.onnx", "openvino", ".xml"),  # the reader of ONNX graphs
}


class FoundConverter(NamedTuple):
    """Converter found, with its version, or its problem."""

    name: str
    version: str
    problem: str


Ask = Callable[[Sequence[str]], tuple[str, str]]
"""Import the named converters in a child process: its output lines, and how it ended if not well."""


def find_converters(ask: Ask | None = None) -> tuple[FoundConverter, ...]:
    """All converters, in order. One that crashes the child has that as its problem; the rest get another child."""
    found: list[FoundConverter] = []
    while rest := list(CONVERTERS)[len(found) :]:
        lines, ended = (ask or _in_a_child)(rest)
        found += [FoundConverter(*json.loads(line)) for line in lines.splitlines()]
        if len(found) < len(CONVERTERS):
            name = list(CONVERTERS)[len(found)]
            problem = LATE if ended == LATE else f"importing it ends the process: {ended or 'it said nothing'}"
            found.append(FoundConverter(name, "", problem))
    return tuple(found)


def _in_a_child(names: Sequence[str]) -> tuple[str, str]:
    command = [sys.executable, "-P", "-m", "edgekd.measure.converters", *names]  # -P: no module of the folder here
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_OFFLINE},
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), LATE
    code = done.returncode
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""
    return done.stdout.decode(), ended


def _look(name: str) -> FoundConverter:
    converter = CONVERTERS[name]
    try:
        importlib.import_module(converter.module)
    except ModuleNotFoundError as error:
        absent = str(error.name)
        itself = converter.module == absent or converter.module.startswith(f"{absent}.")
        return FoundConverter(name, "", "not installed" if itself else f"it needs {absent}, which is not installed")
    except Exception as error:  # noqa: BLE001  # any error of a package's import is its problem, shown in full
        return FoundConverter(name, "", f"can't be imported: {type(error).__name__}: {error}"[:400])
    try:
        return FoundConverter(name, metadata.version(converter.package), "")
    except metadata.PackageNotFoundError:
        return FoundConverter(name, "unknown", "")


def main() -> int:
    """Check the converters named as arguments, one JSON line each."""
    answers = os.dup(1)
    os.dup2(2, 1)  # output of packages during import must not mix with the JSON lines
    keep_silent()
    for name in sys.argv[1:]:
        os.write(answers, (json.dumps(_look(name)) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
