"""Metadata that a run writes into a finalist's file: enough to use the model when only the file is left.

Texts of one printable line each, so that every format can hold them; lists are JSON. They depend on the run, the
candidate and the options alone: converted again, a student gives the same file.
"""

from __future__ import annotations

import json

from edgekd.artefacts import Format
from edgekd.export._protocol import ExportOptions
from edgekd.ir.plan import Candidate
from edgekd.records import canonical_json
from edgekd.store.records import RunHeader
from edgekd.tasks._protocol import InputSpec
from edgekd.tasks.rows import outputs_of
from edgekd.version import __version__

__all__ = ["facts_of"]


def facts_of(header: RunHeader, candidate: Candidate, options: ExportOptions, file_format: Format) -> dict[str, str]:
    """Metadata by name. ``candidate`` has the precision of this file; its backend is left out, for two may share a
    file.

    ``input_shape`` has the batch axis and the file's layout; of several inputs ``inputs`` has [name, dtype, shape] of
    each. With ``preprocess`` fold the file takes raw values, and with stated those the caller has normalised with
    ``mean`` and ``std``.
    """
    task, given, precision = header.task, header.task.input, candidate.plan.precision
    facts = {
        "task": task.name,
        **(_several(given, options) if given.named else _one(given, options)),
        "family": candidate.family,
        "arch": canonical_json(candidate.arch.model_dump(mode="json")),
        "precision": precision.value,
        "arithmetic": precision.arithmetic(file_format),
        "teacher": header.teacher,
        "edgekd": __version__,
        "run": header.id,
        "seed": str(header.seed),
    }
    if task.plain:
        facts["classes"] = str(task.head.classes)
    else:
        facts["heads"] = canonical_json([head.model_dump(mode="json") for head in task.heads])
        facts["outputs"] = canonical_json([[output.name, output.dtype, output.shape] for output in outputs_of(task)])
    if task.plain and task.head.labels:
        facts["labels"] = canonical_json(task.head.labels)
    return {name: _printable(value) for name, value in facts.items()}


def _one(given: InputSpec, options: ExportOptions) -> dict[str, str]:
    return {
        "input": given.name,
        "input_shape": canonical_json(options.shape(given)),
        "input_layout": options.axes(given),
        "input_dtype": options.dtype(given),
        "mean": canonical_json(given.mean),
        "std": canonical_json(given.std),
        "preprocess": options.preprocess,
    }


def _several(given: InputSpec, options: ExportOptions) -> dict[str, str]:
    return {"inputs": canonical_json([[one.name, one.dtype, (options.batch, *one.shape)] for one in given.named])}


def _printable(text: str) -> str:
    """Escape characters, as JSON does, that XML can't hold, or that would break a line: in JSON nothing is lost."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
