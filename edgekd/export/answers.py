"""Outputs of an exported file on a device, for raw samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.devices._protocol import DeviceSession, Job, Outcome, RunResult
from edgekd.devices.answers import nonsense
from edgekd.devices.outputs import open_output
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import answers_of, output_encoding, to_model_inputs
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Rows, TaskSpec
from edgekd.tasks.rows import outputs_of

__all__ = ["file_answers", "read_outputs", "save_inputs"]


def file_answers(
    session: DeviceSession, job: Job, student: Student, raw: NDArray[Any], options: ExportOptions, scratch: Path
) -> Rows:
    """Outputs (N,) of the file for raw samples (N, C, H, W): logits (N, classes) of a plain task.

    A file of a fixed batch larger than one is given samples padded to whole batches. Raises ConfigurationError with the
    runtime's message where the file won't run, DeviceUnreachable where the device returns other outputs than the file
    has.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    count = len(raw)
    if isinstance(options.batch, int) and options.batch > 1 and count % options.batch:
        fill = np.repeat(raw[-1:], options.batch - count % options.batch, axis=0)
        raw = np.concatenate([raw, fill])
    inputs = to_model_inputs(raw, student.task, options, student.annotations.activations.get("input"))
    paths = save_inputs(inputs, scratch)
    try:
        result = session.run(job, paths)
        if result.outcome is not Outcome.OK:
            raise ConfigurationError.one(
                f"{job.artefact.path.name} doesn't run in {job.backend}: {result.outcome.value}: {result.detail}",
                "export it in another format or precision",
            )
        outputs = [output[:count] for output in read_outputs(result, len(raw), student.task, options)]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    encoding = output_encoding(student) if options.output != "float32" else None
    return answers_of(outputs, student.task, options, encoding)


def save_inputs(inputs: Sequence[NDArray[Any]], folder: Path) -> list[Path]:
    """Save a file's inputs, each as an .npy that a device's run reads."""
    paths = [folder / f"input{number}.npy" for number in range(len(inputs))]
    for path, values in zip(paths, inputs, strict=True):
        np.save(path, values, allow_pickle=False)
    return paths


def read_outputs(result: RunResult, samples: int, spec: TaskSpec, options: ExportOptions) -> list[NDArray[Any]]:
    """Arrays (N, ...), one per output of a file exported for this task.

    Raises DeviceUnreachable where there are more or fewer, or of another kind of numbers or another shape.
    """
    wanted = outputs_of(spec)
    if len(result.outputs) != len(wanted):
        raise nonsense(f"{len(result.outputs)} outputs, and the model has {len(wanted)}")
    found = []
    for path, output in zip(result.outputs, wanted, strict=True):
        array = open_output(path, samples)
        kind = np.dtype(options.output if spec.plain else output.dtype).kind
        fits = math.prod(array.shape[1:]) == spec.head.classes if spec.plain else array.shape[1:] == output.shape
        if not fits or array.dtype.kind != kind:
            raise nonsense(f"output `{output.name}` is {array.dtype} {array.shape[1:]}, not {output.shape} a sample")
        found.append(np.array(array))
    return found
