"""mIoU: intersection over union of each class over all pixels, averaged over classes, by torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import MissingError
from edgekd.tasks.rows import IGNORED

__all__ = ["mean_intersection_over_union"]


def mean_intersection_over_union(
    answers: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]], classes: int
) -> float:
    """Return mIoU of class maps (N, H, W) and masks (N, H, W), without classes in neither and without pixels of 255.

    Raises MissingError without torchmetrics.
    """
    import torch

    try:
        from torchmetrics.classification import MulticlassJaccardIndex
    except ImportError as error:
        raise MissingError("mIoU needs torchmetrics, and it is not installed", "pip install torchmetrics") from error
    measure = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED, validate_args=False)
    for start in range(0, len(labels), 64):
        part = slice(start, start + 64)
        measure.update(
            torch.from_numpy(answers[part].astype(np.int64)), torch.from_numpy(labels[part].astype(np.int64))
        )
    return float(measure.compute())
