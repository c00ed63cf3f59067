"""Exporter protocol: one exporter per format. It applies a student's annotations and never invents any."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, cast

from pydantic import PositiveInt

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import Problem
from edgekd.records import Record
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import InputSpec

__all__ = ["ConversionOutcome", "ConversionResult", "ExportOptions", "Exporter", "InputDtype", "InputLayout"]

InputLayout = Literal["nchw", "nhwc", "nct", "ntc", "nc", "nt"]
"""Axes of a file's input: N batch, C channels, H rows, W columns, T time."""


InputDtype = Literal["float32", "uint8", "int8", "int32"]


class ExportOptions(Record):
    """Options of the I/O wrapper of an exported model: the project file's ``export`` section.

    ``layout`` places the channels of the file's input: ``nhwc`` last, (N, H, W, C) of an image and (N, T, C) of a
    signal; ``nchw`` first. ``fold`` puts normalisation into the graph, which then takes raw values; ``stated`` leaves
    it to the caller and writes it down in preprocess.json. ``formats`` are put into the bundle beside the certified
    file.
    """

    input: Literal["float32", "uint8", "int8"] = "float32"
    output: Literal["float32", "uint8", "int8"] = "float32"
    layout: Literal["nchw", "nhwc"] = "nhwc"
    preprocess: Literal["fold", "stated"] = "fold"
    batch: PositiveInt | Literal["dynamic"] = 1
    formats: tuple[Format, ...] = ()

    def dtype(self, given: InputSpec) -> InputDtype:
        """Type of the file's only input: token ids are int32 whatever the option."""
        return self.input if given.text is None else "int32"

    def order(self, given: InputSpec) -> tuple[int, ...]:
        """Permutation: for each axis of the file's input, its axis in a batch of raw samples (N, C, ...)."""
        rank = len(given.shape)
        return (0, *range(2, rank + 1), 1) if self.layout == "nhwc" and rank > 1 else tuple(range(rank + 1))

    def axes(self, given: InputSpec) -> InputLayout:
        """Axes of the file's only input, in order: ``nhwc``, ``ntc``."""
        names = {1: "nc" if given.text is None else "nt", 2: "nct", 3: "nchw"}[len(given.shape)]
        return cast("InputLayout", "".join(names[axis] for axis in self.order(given)))

    def shape(self, given: InputSpec) -> tuple[int | str, ...]:
        """Shape of the file's only input, batch included."""
        return (self.batch, *(given.shape[axis - 1] for axis in self.order(given)[1:]))


class ConversionOutcome(str, Enum):
    """Outcome of a conversion. Only OK leaves an artefact; none of the others ends a search."""

    OK = "ok"
    REFUSED = "refused"  # an operator or option the format can't have; `detail` names it
    CRASHED = "crashed"
    HUNG = "hung"
    OUT_OF_MEMORY = "out-of-memory"


class ConversionResult(Record):
    """Result of a conversion.

    ``float_operators`` are the operators of a static int8 file that compute in float, as ``KIND (tensor)``: none where
    the file is fully integer. It is None for other precisions, and where the format does not show them (OpenVINO, whose
    plug-in decides when it compiles).
    """

    outcome: ConversionOutcome
    artefact: Artefact | None = None
    detail: str = ""
    seconds: float = 0.0
    float_operators: tuple[str, ...] | None = None


class Exporter(Protocol):
    """Exporter of a format. Runs inside the conversion worker, so it may import a converter freely."""

    format: Format

    def check(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None
    ) -> Sequence[Problem]:
        """Problems that prevent this file of the student for this backend: the unsupported operator, and a remedy."""
        ...

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the file. Raises ConfigurationError where ``check`` would have had a problem."""
        ...
