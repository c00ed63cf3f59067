"""First diverging operator of a file against its student, for the message of a failed parity check.

Values of an integer file are compared with those of the integer reference, not of the float student: quantization
itself may move a value by more than a wrong operator does. The file runs here with all its intermediate values kept
(LiteRT's own kernels, ONNX Runtime without fusion, or OpenVINO with a result behind every value), so it finds wrong
files; a wrong kernel of another device it can't see, and the message says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.agent.telemetry import keep_silent
from edgekd.artefacts import Artefact, Format
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import student_inputs, to_model_inputs
from edgekd.students._protocol import Student

__all__ = ["first_divergence"]

_SHARE = 0.05  # of a tensor's largest magnitude: roundings of ties grow on their way through the layers


def first_divergence(artefact: Artefact, student: Student, raw: NDArray[Any], options: ExportOptions) -> str:
    """Describe the first divergence. ``raw`` is one sample (1, C, ...); a file of a larger batch gets it repeated."""
    inputs = to_model_inputs(raw, student.task, options, student.annotations.activations.get("input"))
    if isinstance(options.batch, int):
        inputs = [np.repeat(values, options.batch, axis=0) for values in inputs]
    readers = {Format.ONNX: _onnx_values, Format.TFLITE: _tflite_values, Format.OPENVINO: _openvino_values}
    shown = readers[artefact.format](artefact, inputs)
    ours = _student_values(student, student_inputs(student, raw, options))
    for key, (node, value) in ours.items():
        theirs = shown.get(key, shown.get(node))  # TFLite's tensors have keys for names, others their nodes
        if theirs is None and key == list(ours)[-1] and options.output == "float32" and student.task.plain:
            theirs = shown.get(student.task.head.name)  # the output, which has the caller's name
        theirs = theirs[:1] if theirs is not None and theirs.ndim else None
        if theirs is None or theirs.size != value.size:
            continue
        difference = _difference(theirs, value)
        if not difference <= _SHARE * float(np.abs(value).max(initial=1e-6)):
            return f"the file leaves the student at `{key}` (largest difference there {difference:.3g})"
    return "every value inside the file is the student's when it runs here: the device's kernels differ"


def _difference(theirs: NDArray[np.float32], value: NDArray[np.float32]) -> float:
    """Largest difference, in the layout that fits better: with equal sides, a shape doesn't show channel-last."""
    laid = [theirs.reshape(value.shape)]
    if theirs.ndim in (3, 4):
        last = np.moveaxis(theirs, -1, 1)
        fits = [each for each in (theirs, last) if each.shape == value.shape]
        laid = fits or laid
    return min(float(np.abs(each - value).max(initial=0.0)) for each in laid)


def _student_values(student: Student, inputs: NDArray[Any]) -> Mapping[str, tuple[str, NDArray[np.float32]]]:
    """Value of each node by key, in order, with the node's name: as the integer reference computes it.

    A node that only moves values has no name: torch numbers these differently on the way to ONNX.
    """
    import torch

    from edgekd.compress.quantization.reference import IntegerReference, reference_module
    from edgekd.students.graph import execute, trace

    precision, found = student.annotations.precision, dict[str, Any]()
    if precision.weights.is_integer and not precision.is_static:
        student = student.but(module=reference_module(student))
    traced = trace(student, decomposed=False)

    def record(key: str, value: Any) -> Any:
        found[key] = value
        return value

    with torch.no_grad():
        if precision.is_static:
            found = IntegerReference(traced).values(torch.from_numpy(inputs))
        else:
            execute(traced, torch.from_numpy(inputs), record)
    graph = {node.name: node for node in traced.program.graph.nodes}
    nodes = {key: graph[name] for key, name in traced.nodes.items() if graph[name].op == "call_function"}
    values = {
        key: ("" if _moves(nodes[key]) else nodes[key].name, value.detach().float().numpy().copy())
        for key, value in found.items()
        if key in nodes and isinstance(value, torch.Tensor)
    }
    encoded, floats = student.annotations.activations, student.annotations.float_operators
    # a convolution whose ReLU is fused into it has no value of its own in an int8 file
    fused = {
        key
        for key in values
        if encoded
        and key not in (*encoded, *floats)
        and any(traced.keys.get(user.name) in encoded for user in nodes[key].users)
    }
    return {key: value for key, value in values.items() if key not in fused}


def _moves(node: Any) -> bool:
    from edgekd.students.graph import spec_of

    row = spec_of(node)
    return row.moves and row.transparent


def _onnx_values(artefact: Artefact, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(artefact.path.read_bytes())
    named = [name for node in model.graph.node for name in node.output if "/" not in name]
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in named if name not in present)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    feed = {given.name: values for given, values in zip(session.get_inputs(), inputs, strict=True)}
    answers = session.run(None, feed)
    names = [output.name for output in session.get_outputs()]
    return {name: np.asarray(value, np.float32) for name, value in zip(names, answers, strict=True)}


def _openvino_values(artefact: Artefact, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    keep_silent()
    import openvino

    from edgekd.agent.runtimes.openvino import computed_in

    core = openvino.Core()
    model = core.read_model(artefact.path)
    ends = {name for end in (*model.inputs, *model.outputs) for name in end.get_names()}
    # values keep their names from the ONNX graph; those with a slash are intermediate steps of one
    model.add_outputs(
        [
            output
            for node in model.get_ordered_ops()
            for output in node.outputs()
            if any("/" not in name for name in output.get_names()) and not ends & output.get_names()
        ]
    )
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": computed_in(model)})
    answers = compiled(list(inputs))
    return {name: np.asarray(value, np.float32) for end, value in answers.items() for name in end.get_names()}


def _tflite_values(artefact: Artefact, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    from edgekd.export.tflite.body import run_shown

    interpreter = run_shown(artefact.path.read_bytes(), inputs)
    values = {}
    for detail in interpreter.get_tensor_details():
        try:
            value = interpreter.get_tensor(detail["index"])
        except ValueError:
            continue  # a kernel's scratch memory holds no value
        scales, zeros = detail["quantization_parameters"]["scales"], detail["quantization_parameters"]["zero_points"]
        if len(scales) == 1:
            value = (value.astype(np.float32) - np.float32(zeros[0])) * np.float32(scales[0])
        values[str(detail["name"])] = np.asarray(value, np.float32)
    return values
