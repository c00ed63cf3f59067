"""What an exporter is: one a format. It applies a student's annotations and never invents any."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from pydantic import PositiveInt

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.records import Record
from edgekd.students._protocol import Student

__all__ = ["ConversionOutcome", "ConversionResult", "ExportOptions", "Exporter"]


class ExportOptions(Record):
    """The outside of an exported model: the project file's ``export`` section.

    ``fold`` puts normalisation into the graph, which then takes raw values; ``stated`` leaves it to the caller and
    writes it down in preprocess.json. ``formats`` are put into the bundle beside the certified file.
    """

    input: Literal["float32", "uint8", "int8"] = "float32"
    output: Literal["float32", "uint8", "int8"] = "float32"
    layout: Literal["nchw", "nhwc"] = "nhwc"
    preprocess: Literal["fold", "stated"] = "fold"
    batch: PositiveInt | Literal["dynamic"] = 1
    formats: tuple[Format, ...] = ()


class ConversionOutcome(str, Enum):
    """How a conversion ended. Only OK leaves an artefact; none of the others ends a search."""

    OK = "ok"
    REFUSED = "refused"  # an operator or option the format can't have; `detail` names it
    CRASHED = "crashed"
    HUNG = "hung"
    OUT_OF_MEMORY = "out-of-memory"


class ConversionResult(Record):
    """One conversion's end.

    ``float_operators`` are the operators of a static int8 file that compute in float, as ``KIND (tensor)``: none where
    the file is fully integer. It is None for other precisions, and where the format can't tell (OpenVINO, whose plug-in
    decides when it compiles).
    """

    outcome: ConversionOutcome
    artefact: Artefact | None = None
    detail: str = ""
    seconds: float = 0.0
    float_operators: tuple[str, ...] | None = None


class Exporter(Protocol):
    """Writes one format. Runs inside the conversion worker, so it may import a converter freely."""

    format: Format

    def check(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None
    ) -> Sequence[Problem]:
        """Why this student can't have this file for this backend: the operator that stops it, and what would help."""
        ...

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the file. Raises ConfigurationError where ``check`` would have had a problem."""
        ...
