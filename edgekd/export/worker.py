"""Conversion worker: a process of its own, for converters crash, hang and leak.

Started as ``python -m edgekd.export.worker PARENT``, the process it ends with.

One JSON object a line on stdin and stdout; everything converters print goes to stderr. Requests are ``{"id": 1, "do":
"warm", "format": "tflite"}`` (import the format's converter) and ``{"id": 2, "do": "convert", ...}``; each is answered
by ``{"id": 2, "outcome": "ok", "detail": "", "float_operators": null}``: a list of an int8 file's operators that
compute in float, where its format shows them. The outcome ``fault`` is not the model's: the disk is full.

Converters are imported here and nowhere else, with model hubs switched off. It ends at the end of stdin, or when its
parent is gone.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from edgekd.agent.faults import is_fault, is_want_of_memory
from edgekd.agent.telemetry import keep_silent
from edgekd.code_references import exit_of
from edgekd.errors import EdgeKDError
from edgekd.export._protocol import ConversionOutcome

__all__ = ["ENVIRONMENT", "FAULT", "main"]

FAULT = "fault"
"""Outcome of a conversion that could not be tried here and now."""

ENVIRONMENT: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",  # converters take paths as UTF-8
}
"""Environment of a worker, in addition to the person's own."""


def main() -> NoReturn:
    """Serve until stdin ends, then end the process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a converter's prints, Python's and C's alike, must not mix with answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle
    _end_with(int(sys.argv[1]))
    keep_silent()
    os.nice(5)
    gc.disable()  # during the import of libraries: a million objects that stay
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps({"id": request["id"], **_answer(request)}) + "\n")
        answers.flush()
    os._exit(0)  # everything is written; destructors of the converters' libraries may hang unseen


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    outcome, detail, left = ConversionOutcome.OK.value, "", None
    try:
        left = _DO[request["do"]](request)
    except SystemExit as error:  # from the code of the user's own model
        outcome, detail = ConversionOutcome.REFUSED.value, str(exit_of(error))
    except Exception as error:  # noqa: BLE001  # any error of a converter is its refusal, sent in full to the host
        own = isinstance(error, EdgeKDError)
        detail = str(error) if own else f"{type(error).__name__}: {error}"[:4000]
        outcome = ConversionOutcome.REFUSED.value
        if is_want_of_memory(error):  # also where an error of edgekd's wraps it as a refusal
            outcome = ConversionOutcome.OUT_OF_MEMORY.value
        elif is_fault(error):
            outcome = FAULT
    return {"outcome": outcome, "detail": detail, "float_operators": left}


def _warm(request: Mapping[str, Any]) -> None:
    import importlib

    from edgekd.artefacts import Format

    try:
        for module in Format(request["format"]).converter:
            importlib.import_module(module)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # a conversion makes millions of objects, few of which are garbage in circles
        gc.enable()


def _convert(request: Mapping[str, Any]) -> list[str] | None:
    """Write the file. Returns an int8 file's operators that compute in float, None where its format shows none."""
    from edgekd import plugins
    from edgekd.artefacts import Backend, Format
    from edgekd.devices._protocol import Fingerprint
    from edgekd.errors import ConfigurationError
    from edgekd.export._protocol import Exporter, ExportOptions
    from edgekd.export.integer import float_operators
    from edgekd.export.metadata import write_facts
    from edgekd.export.tflite.description import can_describe, describe
    from edgekd.students.student import load_student

    exporter: Exporter = plugins.load("edgekd.exporters", request["format"])()
    student = load_student(_here(request["student"]))
    options = ExportOptions.model_validate(request["options"])
    backend = Backend.model_validate(request["backend"])
    device = None if request["fingerprint"] is None else Fingerprint.model_validate(request["fingerprint"])
    problems = exporter.check(student, options, backend, device)
    if problems:
        raise ConfigurationError(problems)
    path = _here(request["path"])
    exporter.export(student, options, backend, device, path)
    if request["facts"]:
        write_facts(path, request["facts"])
        if exporter.format is Format.TFLITE and can_describe(student.task, options):
            describe(path, student.task, options)  # last: what `write_facts` writes ends with the flatbuffer
    left = float_operators(path) if student.annotations.precision.is_static else None
    return None if left is None else list(left)


def _here(path: str) -> Path:
    """Path of the host in this process' encoding of file names."""
    return Path(os.fsdecode(os.fsencode(path)))


_DO: Mapping[str, Callable[[Mapping[str, Any]], list[str] | None]] = {
    "warm": _warm,
    "convert": _convert,
}


def _end_with(parent: int) -> None:
    """Exit when the host has gone without closing stdin, even in the middle of a conversion."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
