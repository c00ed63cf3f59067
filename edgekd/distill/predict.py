"""Prediction: a module's outputs for raw samples, normalised, in eval mode, without gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.inputs import Normalisation
from edgekd.tasks._protocol import Rows, Score, Task, TaskSpec
from edgekd.tasks.mapped import release
from edgekd.tasks.rows import empty_rows, output_rows

if TYPE_CHECKING:
    from torch import nn

__all__ = ["predict", "validator"]

_BYTES_ON_ACCELERATOR = 64 * 1024**2  # of samples as float32


def predict(module: nn.Module, inputs_raw: NDArray[Any], spec: TaskSpec, batch: int | None = None) -> Rows:
    """Return outputs for raw samples (N, C, H, W) like an exported file's: logits (N, classes) for a plain task.

    ``batch`` defaults to `InputSpec.at_once`, of 64 MiB on an accelerator. Runs on the device of the parameters. The
    module's training mode is always restored.
    """
    import torch

    from edgekd.students.heads.deployed import deployed

    first = next(module.parameters(), None)
    if batch is None:
        on_cpu = first is None or first.device.type == "cpu"
        batch = spec.input.at_once() if on_cpu else spec.input.at_once(_BYTES_ON_ACCELERATOR)
    normalise = Normalisation(spec.input, None if first is None else first.device)
    whole, answers = deployed(module, spec), empty_rows(spec, len(inputs_raw))
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(inputs_raw), batch):
                raw = torch.from_numpy(np.require(inputs_raw[start : start + batch], requirements=["C", "W"]))
                outputs = whole(normalise(raw))
                parts = outputs if isinstance(outputs, tuple) else (outputs.float(),)
                answers[start : start + batch] = output_rows(spec, [part.cpu().numpy() for part in parts])
                release()
    finally:
        for part, training in modes:  # one by one: parts frozen in eval mode inside a training module stay so
            part.training = training
    return answers


def validator(task: Task) -> Callable[[nn.Module], Score] | None:
    """Return a function that scores a module on the validation split; None if the split is empty."""
    split = task.split("validation")
    if not len(split):
        return None
    return lambda module: task.score(predict(module, split.inputs, task.spec), split.labels)
