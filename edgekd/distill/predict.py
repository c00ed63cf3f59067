"""Prediction: a module's outputs for raw samples, normalised, in eval mode, without gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.inputs import Normalisation
from edgekd.tasks._protocol import Rows, Task, TaskSpec
from edgekd.tasks.mapped import release
from edgekd.tasks.rows import empty_rows, output_rows

if TYPE_CHECKING:
    from torch import nn

__all__ = ["predict", "validator"]


_MOST_AT_ONCE, _BYTES_AT_ONCE = 256, 64 * 1024**2  # of samples as float32


def predict(module: nn.Module, inputs_raw: NDArray[Any], spec: TaskSpec, batch: int | None = None) -> Rows:
    """Return outputs for raw samples (N, C, H, W) like an exported file's: logits (N, classes) for a plain task.

    ``batch`` defaults to 256, or to fewer that take 64 MiB as float32. The module's training mode is always restored.
    Runs on the device of the parameters.
    """
    import torch

    from edgekd.students.heads.deployed import deployed

    if batch is None:
        batch = max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // (4 * math.prod(inputs_raw.shape[1:]))))
    first = next(module.parameters(), None)
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


def validator(task: Task) -> Callable[[nn.Module], float] | None:
    """Return a function that scores a module on the validation split; None if the split is empty."""
    split = task.split("validation")
    if not len(split):
        return None
    return lambda module: task.score(predict(module, split.inputs, task.spec), split.labels).value
