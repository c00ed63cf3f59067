"""Labels of several heads as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekd.tasks._protocol import Rows, TaskSpec

__all__ = ["in_cells", "targets_of"]


def targets_of(spec: TaskSpec, labels: Rows) -> dict[str, Tensor]:
    """Return one tensor for each head, (N, ...), in the layout of `rows`; boxes in pixels."""
    return {head.name: torch.from_numpy(np.ascontiguousarray(labels[head.name])) for head in spec.heads}


def in_cells(boxes: Tensor, image: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Convert label boxes (N, M, 6) from pixels of an image (height, width) to cells of a map."""
    scale = boxes.new_tensor([cells[1] / image[1], cells[0] / image[0]] * 2 + [1.0, 1.0])
    return boxes * scale
