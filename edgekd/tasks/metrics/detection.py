"""mAP: COCO's average precision over IoU 0.50 to 0.95, by pycocotools (Lin et al. 2014, arXiv 1405.0312)."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import MissingError
from edgekd.tasks.rows import NOTHING

__all__ = ["mean_average_precision"]


def mean_average_precision(
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    kinds: NDArray[np.integer[Any]],
    labels: NDArray[np.floating[Any]],
    classes: int,
) -> float:
    """Return AP@[.50:.95], all areas, 100 detections an image; 0 if there are no objects.

    Boxes (N, K, 4) as x1, y1, x2, y2, scores (N, K), kinds (N, K); labels (N, M, 6) as in `rows`. Detections with a
    score of 0 don't count. Raises MissingError without pycocotools.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingError("mAP needs pycocotools, and it is not installed", "pip install pycocotools") from error
    true = _annotations(labels)
    if not any(not annotation["iscrowd"] for annotation in true):
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        known = COCO()
        known.dataset = {
            "images": [{"id": at} for at in range(1, len(labels) + 1)],
            "categories": [{"id": kind + 1} for kind in range(classes)],
            "annotations": true,
        }
        known.createIndex()
        found = _detections(boxes, scores, kinds)
        if not len(found):
            return 0.0
        evaluation = COCOeval(known, known.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _annotations(labels: NDArray[np.floating[Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image, place in zip(*np.nonzero(labels[:, :, 4] > NOTHING), strict=True):
        x1, y1, x2, y2, kind, ignored = (float(value) for value in labels[image, place])
        found.append(
            {
                "id": len(found) + 1,
                "image_id": int(image) + 1,
                "category_id": int(kind) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(ignored),
            }
        )
    return found


def _detections(
    boxes: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]], kinds: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return rows of image, x, y, width, height, score, class, in pycocotools' format."""
    image, place = np.nonzero(scores > 0)
    chosen = boxes[image, place].astype(np.float64)
    sizes = chosen[:, 2:] - chosen[:, :2]
    rest = (scores[image, place], kinds[image, place] + 1)
    columns = (image + 1, chosen[:, 0], chosen[:, 1], sizes[:, 0], sizes[:, 1], *rest)
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
