"""What a module answers to raw samples: normalised, in eval mode, without gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.inputs import Normalisation
from edgekd.tasks._protocol import Rows, TaskSpec
from edgekd.tasks.mapped import release
from edgekd.tasks.rows import empty_rows, output_rows

if TYPE_CHECKING:
    from torch import nn

__all__ = ["predict"]


def predict(module: nn.Module, inputs_raw: NDArray[Any], spec: TaskSpec, batch: int = 256) -> Rows:
    """Answers for raw samples (N, C, H, W), as an exported file gives them: logits (N, classes) of a plain task.

    The module's own mode is restored, whatever happens. It computes where its parameters are.
    """
    import torch

    from edgekd.students.heads.deployed import deployed

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
