"""What a module answers to raw samples: normalised, in eval mode, without gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.inputs import Normalisation
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["predict"]


def predict(module: nn.Module, inputs_raw: NDArray[Any], spec: TaskSpec, batch: int = 256) -> NDArray[np.float32]:
    """Logits (N, classes), float32, for raw samples (N, C, H, W).

    The module's own mode is restored, whatever happens. It computes where its parameters are.
    """
    import torch

    first = next(module.parameters(), None)
    normalise = Normalisation(spec.input, None if first is None else first.device)
    answers = np.empty((len(inputs_raw), spec.head.classes), np.float32)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(inputs_raw), batch):
                raw = torch.from_numpy(np.ascontiguousarray(inputs_raw[start : start + batch]))
                answers[start : start + batch] = module(normalise(raw)).float().cpu().numpy()
    finally:
        for part, training in modes:  # one by one: parts frozen in eval mode inside a training module stay so
            part.training = training
    return answers
