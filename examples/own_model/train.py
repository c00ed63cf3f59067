"""Trains `my_model` on digits, labels alone, and writes my_model.safetensors beside this file. A minute on two cores.

Any training will do: what edgekd takes over is the function `build` and its weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from my_model import build
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from edgekd.tasks.digits import Digits

EPOCHS, BATCH = 25, 64


def main() -> None:
    """Train, say how good it is on samples it has not seen, save."""
    torch.manual_seed(0)
    task = Digits()
    spec, train, validation = task.spec, task.split("train"), task.split("validation")
    mean, std = spec.input.mean[0], spec.input.std[0]

    def normalised(inputs: np.ndarray) -> Tensor:
        return (torch.from_numpy(inputs.astype(np.float32)) - mean) / std

    inputs, labels = normalised(train.inputs), torch.from_numpy(np.array(train.labels))
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimiser.zero_grad()
            cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimiser.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        score = task.score(model(normalised(validation.inputs)).numpy(), validation.labels)
    save_file(model.state_dict(), Path(__file__).with_name("my_model.safetensors"))
    print(f"validation {score.value:.1%}, {sum(p.numel() for p in model.parameters())} weights")


if __name__ == "__main__":
    main()
