"""TFLite exporter: float32, float16, dynamic int8 and static int8, edited from one float conversion.

Applies every encoding of the annotations, and refuses, naming the operator, where one has no place in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Problem
from edgekd.export._protocol import ExportOptions
from edgekd.export.float_bodies import Kept, body_key, traced
from edgekd.export.io_wrapper import IOWrapper, problems_of
from edgekd.ir.numerics import F16
from edgekd.students._protocol import Student

if TYPE_CHECKING:
    from edgekd.export.tflite.body import TfliteBody

__all__ = ["TfliteExporter"]

_CORES: Kept[TfliteBody] = Kept()


class TfliteExporter:
    """Writes ``.tflite``."""

    format = Format.TFLITE

    def check(
        self,
        student: Student,
        options: ExportOptions,
        backend: Backend,
        device: Fingerprint | None,  # noqa: ARG002  # no saturation was found in LiteRT's kernels
    ) -> Sequence[Problem]:
        """Problems that prevent this file of the student."""
        return problems_of(student, options, self.format, backend)

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the file. Raises ConfigurationError on what `check` finds, or where the graph has no such operator."""
        from edgekd.compress.quantization.tables import tables_of
        from edgekd.export.encoded import encodings_by_node, float_nodes, passing_nodes
        from edgekd.export.tflite.barriers import read_by
        from edgekd.export.tflite.body import convert_body
        from edgekd.export.tflite.encode import halve_weights, narrow_tables, narrow_weights, quantize
        from edgekd.export.tflite.flatbuffer import read_model, write_model
        from edgekd.export.tflite.io_wrapper import add_io_wrapper
        from edgekd.students.islands import kept_tensors

        problems = self.check(student, options, backend, device)
        if problems:
            raise ConfigurationError(problems)
        program = traced(student, dynamic=options.batch != 1)
        encodings = encodings_by_node(program)  # first: annotations of another graph are refused here
        islands = program.student.annotations.float_operators
        about = ("tflite", str(options.batch), *islands)
        body = _CORES.get(body_key(program.student, *about), lambda: convert_body(program, options.batch))
        wrapper, annotations = IOWrapper(program.student, options), program.student.annotations
        precision = wrapper.precision
        tables = tables_of(program)
        merged = annotations.weights.keys() - tables - set(body.parameters.values())
        if merged and not precision.is_static:  # a LayerNorm's scale was merged into them
            apart = read_by(program, merged)
            key = body_key(program.student, *about, *sorted(apart))
            body = _CORES.get(key, lambda: convert_body(program, options.batch, apart))
        if precision.is_static:
            weights = {name: encoding for name, encoding in annotations.weights.items() if name not in tables}
            model = quantize(body, encodings, weights, passing_nodes(program), float_nodes(program))
        else:
            model = read_model(body.data)
            if precision.weights.is_integer:
                narrow_weights(model, body, annotations.weights)
        halve_weights(model, None if precision.weights == F16 else kept_tensors(program.student.module))
        narrow_tables(model, {name: each for name, each in annotations.weights.items() if name in tables})
        add_io_wrapper(model, wrapper)
        path.write_bytes(write_model(model))
        return Artefact.of(path)
