"""Parity check: the outputs of a file against those of its student.

Static int8 is compared with the student's integer reference, in steps of the output's scale: kernels may round a tie
the other way, and now and then such a step grows on its way through the layers. Some networks make every error grow
(MobileNets with wide ranges). There more steps are allowed, beside the quantization error, which is the reference's
difference from the float student: the file's difference from the reference may have a quarter of its root mean square,
in each class half of it, and in each sample as much. Both errors together are then 3 % larger than the quantization
error if they are independent, and 25 % at most. The reference of a file for OpenVINO doesn't round a convolution's
result before the sum behind it (`edgekd.compress.quantization.rules.fused_sums`).

The other precisions are compared with torch on the same weights, relative to the largest logit. On a tie, which is
within the allowed difference of both classes, either is right. Several heads are compared by `parity_heads`.

When a file fails, the first operator at which it diverges from the student is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artefacts import Backend
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.divergence import first_divergence
from edgekd.export.tensors import answers_of, output_encoding, student_inputs, to_model_inputs
from edgekd.ir.encoding import Encoding
from edgekd.ir.numerics import BF16, F16, Precision
from edgekd.records import Record
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Rows
from edgekd.tasks.rows import output_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ParityReport", "check_parity", "compared", "expected_answers"]

_LARGEST_STEPS = 6.0
_OF_ALL, _OF_CLASS, _OF_SAMPLE = 0.25, 0.5, 1.0  # of the quantization error's root mean square
_SAME, _HALF = 1e-3, 2e-2  # differences of float outputs, as shares of the largest logit
_QUANTIZED = 1e-1  # static: after a float island; dynamic: kernels quantize by the range they see; bfloat16


class ParityReport(Record):
    """Differences of a file's outputs from its student's.

    ``expected`` has the student's logits, a row a sample, where the task is plain.
    """

    samples: int
    agree: int  # same largest logit; of several heads: no output differs by more than allowed
    largest: float  # difference, in `unit`
    unit: str
    allowed: float  # in `unit`
    holds: bool
    detail: str = ""
    expected: tuple[tuple[float, ...], ...] = ()


def check_parity(
    session: DeviceSession, job: Job, student: Student, raw: NDArray[Any], options: ExportOptions, scratch: Path
) -> ParityReport:
    """Compare a file with its student on raw samples (N, C, H, W).

    Raises ConfigurationError where the file won't run. Outputs that differ are a report, not an exception.
    """
    return compared(job, student, raw, options, file_answers(session, job, student, raw, options, scratch))


def compared(job: Job, student: Student, raw: NDArray[Any], options: ExportOptions, found: Rows) -> ParityReport:
    """Compare outputs of a file, ``found`` (N,) for raw samples (N, C, H, W), as `check_parity` does."""
    report = _report(student, raw, options, found, job.backend)
    if report.holds:
        return report
    openvino = job.backend.runtime == "openvino"
    if openvino and student.annotations.precision.is_static:  # kernels of another architecture may round every value
        plain = _report(student, raw, options, found, None)
        if plain.holds:
            return plain
    where = first_divergence(job.artefact, student, raw[:1], options)
    if openvino and _report(student, raw, options, _unfused(job, student, raw, options), job.backend).holds:
        where = "with SNIPPETS_MODE=DISABLE it holds here: OpenVINO's own fusing of operators is wrong on this model"
    return report.but(detail=f"{report.detail}; {where}")


def _report(
    student: Student, raw: NDArray[Any], options: ExportOptions, found: Rows, backend: Backend | None
) -> ParityReport:
    if student.task.plain:
        expected = expected_answers(student, raw, options, backend)
        report = _compare(student, expected, found)
        if report.holds or not student.annotations.precision.is_static:
            return report
        in_float = _forward(student.module.eval(), student_inputs(student, raw, options))
        return _beside_quantization(report, expected, found, in_float)
    return _compare_heads(student, _raw(student, raw, options, backend), found)


def _unfused(job: Job, student: Student, raw: NDArray[Any], options: ExportOptions) -> Rows:
    """Outputs of an OpenVINO file on this computer, a sample at a time, without code generated for fused operators.

    OpenVINO 2026.4.1 gives wrong outputs for some graphs otherwise (a BERT with two quantized layers).
    """
    from edgekd.agent.runtimes import open_runtime

    size = options.batch if isinstance(options.batch, int) else 1
    inputs = to_model_inputs(raw, student.task, options, student.annotations.activations.get("input"))
    runtime: Any = open_runtime("openvino", "cpu", 1)
    runtime.options["SNIPPETS_MODE"] = "DISABLE"
    runtime.load(str(job.artefact.path))
    rows = []
    for sample in zip(*inputs, strict=True):
        runtime.prepare([np.repeat(values[None], size, axis=0) for values in sample])
        runtime.call()
        rows.append([output[:1] for output in runtime.read()])
    outputs = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return answers_of(outputs, student.task, options, output_encoding(student) if options.output != "float32" else None)


def expected_answers(
    student: Student, raw: NDArray[Any], options: ExportOptions, backend: Backend | None = None
) -> Rows:
    """Outputs (N,) of the student for raw samples, as a faithful file of these options computes them.

    Logits (N, classes) of a plain task. ``backend`` as in `reference_module`.
    """
    if student.task.plain:
        return _forward(_reference(student, backend), student_inputs(student, raw, options))
    from edgekd.students.heads.deployed import Decoder

    outputs = Decoder(student.task)(_raw(student, raw, options, backend))
    return output_rows(student.task, [output.numpy() for output in outputs])


def _raw(student: Student, raw: NDArray[Any], options: ExportOptions, backend: Backend | None) -> dict[str, Tensor]:
    """Raw outputs by name, each (N, ...)."""
    import torch

    module, inputs = _reference(student, backend), torch.from_numpy(student_inputs(student, raw, options))
    with torch.inference_mode():
        pieces = [module(inputs[start : start + 128]) for start in range(0, len(inputs), 128)]
    return {name: torch.cat([piece[name].float() for piece in pieces]) for name in pieces[0]}


def _reference(student: Student, backend: Backend | None) -> nn.Module:
    if not student.annotations.precision.weights.is_integer:
        return student.module.eval()
    from edgekd.compress.quantization.reference import reference_module

    return reference_module(student, backend)


def _forward(module: nn.Module, inputs: NDArray[np.float32], batch: int = 128) -> NDArray[np.float32]:
    import torch

    answers = []
    with torch.inference_mode():
        for start in range(0, len(inputs), batch):
            answers.append(module(torch.from_numpy(inputs[start : start + batch])).float().numpy())
    return np.concatenate(answers)


def _compare(student: Student, expected: NDArray[np.float32], found: NDArray[np.float32]) -> ParityReport:
    encoding = output_encoding(student)
    if encoding is not None:
        unit, one, allowed = "steps of the output's scale", encoding.scale[0], _steps_allowed(encoding)
    else:
        unit, one = "of the largest logit", float(np.abs(expected).max(initial=1e-6))
        allowed = _largest_share(student.annotations.precision)
    return _difference_report(expected, found, unit, one, allowed)


def _beside_quantization(
    report: ParityReport,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    in_float: NDArray[np.float32],
) -> ParityReport:
    """The report, which holds if the file's difference is small beside the quantization error."""
    difference, error = np.square(found - expected, dtype=np.float64), np.square(expected - in_float, dtype=np.float64)
    if not error.any() or not np.isfinite(difference + error).all():
        return report
    parts = (difference.mean(), difference.mean(0).max(), difference.mean(1).max())
    whole, of_class, of_sample = (float(np.sqrt(part / error.mean())) for part in parts)
    holds = whole <= _OF_ALL and of_class <= _OF_CLASS and of_sample <= _OF_SAMPLE
    beside = f"{whole:.0%} of the quantization error, {of_class:.0%} in a class, {of_sample:.0%} in a sample"
    return report.but(holds=holds, detail=f"{report.detail}: {beside}")


def _difference_report(
    expected: NDArray[np.float32], found: NDArray[np.float32], unit: str, one: float, allowed: float
) -> ParityReport:
    difference = np.abs(found - expected) / one
    # a NaN differs by everything; a record holds finite numbers only
    largest = float(np.nan_to_num(difference, nan=1e9, posinf=1e9).max(initial=0.0))
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    holds = largest <= allowed  # so only outputs within twice that of a tie can differ
    detail = "" if holds else f"{int(same.sum())} of {len(same)} answers agree, largest difference {largest:.3g} {unit}"
    return ParityReport(
        samples=len(expected),
        agree=int(same.sum()),
        largest=round(largest, 6),
        unit=unit,
        allowed=allowed,
        holds=holds,
        detail=detail,
        expected=tuple(tuple(float(value) for value in row) for row in expected),
    )


def _compare_heads(student: Student, expected: dict[str, Tensor], found: Rows) -> ParityReport:
    from edgekd.export.parity_heads import head_differences

    steps = _steps(student, expected)
    by_head = head_differences(student.task, expected, steps, found)
    worst = np.max(np.stack(list(by_head.values())), axis=0)
    largest = float(worst.max(initial=0.0))
    holds = largest <= 1.0
    gaps_text = ", ".join(f"`{name}` {float(gaps.max(initial=0.0)):.3g}" for name, gaps in by_head.items())
    agree = int((worst <= 1.0).sum())
    return ParityReport(
        samples=len(found),
        agree=agree,
        largest=round(largest, 6),
        unit="of the allowed difference",
        allowed=1.0,
        holds=holds,
        detail=""
        if holds
        else f"{agree} of {len(found)} answers agree, largest difference in allowed ones: {gaps_text}",
    )


def _largest_share(precision: Precision) -> float:
    """Allowed difference of a float output, as a share of the largest logit."""
    if precision.scheme.quantized != "never" or precision.activations == BF16:
        return _QUANTIZED
    return _HALF if precision.weights == F16 else _SAME


def _steps_allowed(encoding: Encoding) -> float:
    """Allowed steps: six for 8 bits; a thousandth of the range for 16 bits, whose kernels rescale by 16-bit
    multipliers.
    """
    return max(_LARGEST_STEPS, _SAME * encoding.highest)


def _steps(student: Student, expected: dict[str, Tensor]) -> dict[str, float]:
    """Allowed difference of each raw output."""
    precision = student.annotations.precision
    share = _largest_share(precision)
    shares = {name: share * max(1e-6, float(value.abs().max())) for name, value in expected.items()}
    if not precision.is_static:
        return shares
    from edgekd.export.encoded import encodings_by_node
    from edgekd.students.graph import outputs_in, trace

    traced = trace(student, decomposed=False)
    encodings = encodings_by_node(traced)
    for name, node in zip(expected, outputs_in(traced.program), strict=True):
        if node.name in encodings:
            shares[name] = _steps_allowed(encodings[node.name]) * encodings[node.name].scale[0]
    return shares
