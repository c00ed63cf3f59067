"""Batches of several heads: mappings by name where a plain task has one tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.distill.augment.chain import Chain
from edgekd.distill.augment.colour import Colour
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.erase import Erase
from edgekd.distill.augment.flip import Flip
from edgekd.distill.augment.mixing import Mixed
from edgekd.distill.augment.noise import Noise
from edgekd.distill.augment.random import choices
from edgekd.tasks._protocol import TaskSpec
from edgekd.tasks.rows import ABSENT, IGNORED, NOTHING
from edgekd.teachers._protocol import View

__all__ = ["Batched", "blended", "chosen", "floats", "follows", "moved", "to_device"]

Batched = Tensor | Mapping[str, Tensor]

_LEFT = 0.4  # of a box: with less of it in the picture, it is passed over


def chosen(labels: Batched, indices: Tensor) -> Batched:
    """Select the labels of the samples ``indices``."""
    if isinstance(labels, Tensor):
        return labels.index_select(0, indices)
    return {name: each.index_select(0, indices) for name, each in labels.items()}


def to_device(values: Batched, device: torch.device) -> Batched:
    """Move values to a device."""
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    return {name: each.to(device, non_blocking=True) for name, each in values.items()}


def floats(outputs: Batched) -> Batched:
    """Convert outputs to float32."""
    return outputs.float() if isinstance(outputs, Tensor) else {name: each.float() for name, each in outputs.items()}


def follows(view: View | None) -> bool:
    """Return whether boxes and masks can be moved along with the augmentation's pixels."""
    if isinstance(view, Chain):
        return all(follows(each) for each in view.views)
    # colour, erase and noise leave pixels where they are
    return view is None or isinstance(view, (Flip, PadCrop, Colour, Erase, Noise))


def moved(
    spec: TaskSpec, view: View | None, labels: Mapping[str, Tensor], indices: NDArray[np.int64], seed: int
) -> dict[str, Tensor]:
    """Move these samples' labels along with the augmentation's pixels; ``labels`` are theirs before it. See `follows`.

    Pixels from outside the image are ignored in a mask; an object of which little is left is ignored too.
    """
    result = dict(labels)
    if isinstance(view, Chain):
        for each in view.views:
            result = moved(spec, each, result, indices, seed)
    elif isinstance(view, Flip):
        result = _flipped(spec, result, torch.from_numpy(choices(seed, "flip", indices, 2) == 1))
    elif isinstance(view, PadCrop):
        shifts = 2 * view.pad + 1
        down, right = (
            view.pad - torch.from_numpy(choices(seed, f"crop.{side}", indices, shifts)) for side in ("top", "left")
        )
        result = _shifted(spec, result, down, right)
    return result


def blended(
    spec: TaskSpec, view: Mixed, labels: Mapping[str, Tensor], indices: NDArray[np.int64], seed: int
) -> dict[str, Tensor]:
    """Mix the labels of these samples as the augmentation mixes them, float32; ``labels`` are those of all samples.

    For multilabel and regression heads (`MixingAugmentation.check`). A label unknown in one of two samples is unknown
    in the mixture.
    """
    result = {}
    for head in spec.heads:
        values = labels[head.name].float()
        if head.kind == "multilabel":
            shared = view.blended(torch.where(values == ABSENT, torch.nan, values), indices, seed)
            result[head.name] = torch.where(torch.isnan(shared), float(ABSENT), shared)
        else:
            result[head.name] = view.blended(values, indices, seed)
    return result


def _flipped(spec: TaskSpec, labels: Mapping[str, Tensor], mirrored: Tensor) -> dict[str, Tensor]:
    result = dict(labels)
    for head in spec.heads:
        own = labels[head.name]
        if head.kind == "segmentation":
            result[head.name] = torch.where(mirrored[:, None, None], own.flip(-1), own)
        elif head.kind == "detection":
            other = own.clone()
            other[:, :, 0], other[:, :, 2] = spec.input.shape[2] - own[:, :, 2], spec.input.shape[2] - own[:, :, 0]
            result[head.name] = torch.where(mirrored[:, None, None], other, own)
    return result


def _shifted(spec: TaskSpec, labels: Mapping[str, Tensor], down: Tensor, right: Tensor) -> dict[str, Tensor]:
    height, width = spec.input.shape[1:]
    result = dict(labels)
    for head in spec.heads:
        own = labels[head.name]
        if head.kind == "segmentation":
            rows = torch.arange(height).view(1, -1, 1) - down.view(-1, 1, 1)
            columns = torch.arange(width).view(1, 1, -1) - right.view(-1, 1, 1)
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            samples = torch.arange(len(own)).view(-1, 1, 1)
            there = own[samples, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
            result[head.name] = torch.where(inside, there, IGNORED)
        elif head.kind == "detection":
            result[head.name] = _moved_boxes(own, down.float(), right.float(), (height, width))
    return result


def _moved_boxes(boxes: Tensor, down: Tensor, right: Tensor, size: tuple[int, int]) -> Tensor:
    result = boxes.clone()
    area = _area(boxes)
    for places, shift, most in (((0, 2), right, size[1]), ((1, 3), down, size[0])):
        for place in places:
            result[:, :, place] = (boxes[:, :, place] + shift.view(-1, 1)).clamp(0, most)
    left = _area(result) / area.clamp_min(1e-6)
    objects = boxes[:, :, 4] > NOTHING
    result[:, :, 4] = torch.where(objects & (left <= 0), float(NOTHING), boxes[:, :, 4])
    result[:, :, 5] = torch.where(objects & (left < _LEFT), 1.0, boxes[:, :, 5])
    return torch.where(objects.unsqueeze(2), result, boxes)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, :, 2] - boxes[:, :, 0]).clamp_min(0) * (boxes[:, :, 3] - boxes[:, :, 1]).clamp_min(0)
