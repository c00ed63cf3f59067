"""TFLite files: float32, float16, dynamic int8 and static int8, edited from one float conversion.

Applies every encoding of the annotations, and refuses, naming the operator, where one has no place in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from edgekd.artefacts import Artefact, Backend, Format, Precision
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Problem
from edgekd.export._protocol import ExportOptions
from edgekd.export.cores import Kept, core_key, traced
from edgekd.export.deployable import Deployable, problems_of
from edgekd.students._protocol import Student

if TYPE_CHECKING:
    from edgekd.export.tflite_core import TfliteCore

__all__ = ["TfliteExporter"]

_CORES: Kept[TfliteCore] = Kept()


class TfliteExporter:
    """Writes ``.tflite``."""

    format = Format.TFLITE

    def check(
        self,
        student: Student,
        options: ExportOptions,
        backend: Backend,  # noqa: ARG002  # every LiteRT backend reads the same file
        device: Fingerprint | None,  # noqa: ARG002  # no saturation was found in LiteRT's kernels
    ) -> Sequence[Problem]:
        """Why this student can't have this file."""
        return problems_of(student, options, self.format)

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the file. Raises ConfigurationError on what `check` finds, or where the graph has no such operator."""
        from edgekd.export.encoded import encodings_by_node, float_nodes, passing_nodes
        from edgekd.export.flatbuffer import read_model, write_model
        from edgekd.export.tflite_core import convert_core
        from edgekd.export.tflite_encode import halve_weights, narrow_weights, quantize
        from edgekd.export.tflite_outside import give_outside

        problems = self.check(student, options, backend, device)
        if problems:
            raise ConfigurationError(problems)
        program = traced(student, dynamic=options.batch != 1)
        encodings = encodings_by_node(program)  # first: annotations of another graph are refused here
        islands = program.student.annotations.float_operators
        key = core_key(program.student, "tflite", str(options.batch), *islands)
        core = _CORES.get(key, lambda: convert_core(program, options.batch))
        deployable, annotations = Deployable(program.student, options), program.student.annotations
        precision = deployable.precision
        if precision is Precision.INT8:
            model = quantize(core, encodings, annotations.weights, passing_nodes(program), float_nodes(program))
        else:
            model = read_model(core.data)
            if precision is Precision.FLOAT16:
                halve_weights(model)
            elif precision is Precision.DYNAMIC_INT8:
                narrow_weights(model, core, annotations.weights)
            elif precision is not Precision.FLOAT32:
                assert_never(precision)
        give_outside(model, deployable)
        path.write_bytes(write_model(model))
        return Artefact.of(path)
