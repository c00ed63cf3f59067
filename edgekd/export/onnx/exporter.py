"""ONNX exporter, also for OpenVINO's graphs: float32, float16, dynamic int8 and static int8, from one float export.

A dynamic int8 file stores its weights in 8 bits. In ONNX Runtime its linear layers quantize their inputs at run time,
by one range a call, and multiply integers; its convolutions compute in float. In OpenVINO the file has weights alone in
8 bits, and OpenVINO does as much by itself.

Applies every encoding of the annotations, and refuses where one has no place in the graph. Normalisation, layout and
dtype of the I/O wrapper are operators in front, or the input's own quantization parameters (see `io_wrapper`).
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
    import onnx

__all__ = ["OnnxExporter", "onnx_model", "saturation_problems"]

_CORES: Kept[onnx.ModelProto] = Kept()


class OnnxExporter:
    """Writes ``.onnx``."""

    format = Format.ONNX

    def check(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None
    ) -> Sequence[Problem]:
        """Problems that prevent this file of the student for this backend."""
        return problems_of(student, options, self.format, backend) + saturation_problems(student, backend, device)

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the file. Raises ConfigurationError on what `check` finds, or where the graph has no such operator."""
        problems = self.check(student, options, backend, device)
        if problems:
            raise ConfigurationError(problems)
        unsigned = backend.runtime == "onnxruntime" and device is not None and device.saturates_int8
        model = onnx_model(student, options, unsigned_weights=unsigned, for_openvino=backend.runtime == "openvino")
        path.write_bytes(model.SerializeToString())
        return Artefact.of(path)


def onnx_model(
    student: Student, options: ExportOptions, *, unsigned_weights: bool = False, for_openvino: bool = False
) -> onnx.ModelProto:
    """Student as an ONNX model.

    For int8: weights as uint8 with zero point 128 where asked, and (static) the form of pairs that OpenVINO takes.
    """
    from edgekd.compress.quantization.tables import tables_of
    from edgekd.export.encoded import biases, decoding_nodes, encodings_by_node, float_nodes, passing_nodes
    from edgekd.export.onnx.encode import (
        encode_activations,
        encode_weights,
        halve_weights,
        keep_weights_float,
        moved,
        narrow_weights,
        quantize_at_run_time,
        unrounded_reads,
    )
    from edgekd.export.onnx.graph import POOL, OnnxGraph, float_model
    from edgekd.export.onnx.io_wrapper import add_io_wrapper
    from edgekd.students.islands import kept_tensors

    program = traced(student, dynamic=options.batch != 1)
    key = body_key(program.student, "onnx", str(options.batch != 1))
    graph = OnnxGraph(_CORES.get(key, lambda: float_model(program)))
    wrapper = IOWrapper(program.student, options)
    annotations, precision = program.student.annotations, wrapper.precision
    tables = tables_of(program)  # constants whose rows alone may be left
    left = {
        name: each for name, each in annotations.weights.items() if name not in tables or name in graph.initializers
    }
    if precision.is_static:
        narrow_weights(graph, {name: each for name, each in left.items() if name in tables})
        left = {name: each for name, each in left.items() if name not in tables}
        moving = passing_nodes(program)
        activations = {name: found for name, found in encodings_by_node(program).items() if name not in moving}
        activations |= moved(graph, activations, float_nodes(program) | decoding_nodes(program))
        pooled = {name + POOL: encoding for name, encoding in activations.items() if name + POOL in graph.values}
        activations |= pooled
        unrounded = unrounded_reads(graph, activations.keys(), program, float_nodes(program))
        encode_weights(
            graph, left, activations, biases(program), unsigned=unsigned_weights, write_zeros=not for_openvino
        )
        encode_activations(graph, activations, unrounded)
        if not for_openvino:
            keep_weights_float(graph)
    elif precision.weights == F16:
        halve_weights(graph)
    elif precision.weights.is_integer:
        if precision.scheme.quantized == "dynamic" and not for_openvino:
            left = quantize_at_run_time(graph, left, unsigned=unsigned_weights)
        narrow_weights(graph, left)
    if precision.weights != F16:
        halve_weights(graph, kept_tensors(program.student.module))
    add_io_wrapper(graph, wrapper, paired_input=for_openvino)
    return graph.finish()


def saturation_problems(student: Student, backend: Backend, device: Fingerprint | None) -> list[Problem]:
    """Problems of int8 weights that would saturate silently where this backend has no other kernel for them."""
    if not student.annotations.precision.is_static or backend.runtime != "openvino":
        return []
    if device is None or not device.saturates_int8:
        return []
    wide = sorted(
        name
        for name, encoding in student.annotations.weights.items()
        if encoding.bits > 7 and (encoding.limit is None or encoding.limit > 63)
    )
    if not wide:
        return []
    return [
        Problem(
            f"8-bit weights saturate in OpenVINO on {device.cpu} (no 8-bit dot product): {', '.join(wide[:3])}"
            + (f" and {len(wide) - 3} more" if len(wide) > 3 else ""),
            "calibrate for this device and backend: weights then keep to 7 bits",
        )
    ]
