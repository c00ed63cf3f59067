"""What an exported file answers on a device: raw samples in, answers out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.devices._protocol import DeviceSession, Job, Outcome
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import answers_of, output_encoding, to_model_inputs
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Rows

__all__ = ["file_answers"]


def file_answers(
    session: DeviceSession, job: Job, student: Student, raw: NDArray[Any], options: ExportOptions, scratch: Path
) -> Rows:
    """Answers (N,) of the file for raw samples (N, C, H, W): logits (N, classes) of a plain task.

    A file of a fixed batch larger than one is given samples padded to whole batches. Raises ConfigurationError with the
    runtime's words where the file won't run.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    count = len(raw)
    if isinstance(options.batch, int) and options.batch > 1 and count % options.batch:
        fill = np.repeat(raw[-1:], options.batch - count % options.batch, axis=0)
        raw = np.concatenate([raw, fill])
    inputs = to_model_inputs(raw, student.task, options, student.annotations.activations.get("input"))
    path = scratch / "inputs.npy"
    np.save(path, inputs, allow_pickle=False)
    try:
        result = session.run(job, [path])
        if result.outcome is not Outcome.OK:
            raise ConfigurationError.one(
                f"{job.artefact.path.name} doesn't run in {job.backend}: {result.outcome.value}: {result.detail}",
                "export it in another format or precision",
            )
        outputs = [np.load(output, allow_pickle=False)[:count] for output in result.outputs]
    finally:
        path.unlink(missing_ok=True)
    encoding = output_encoding(student) if options.output != "float32" else None
    return answers_of(outputs, student.task, options, encoding)
