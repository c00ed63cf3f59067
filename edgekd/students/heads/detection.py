"""Detection head, CenterNet style (Zhou, Wang & Krähenbühl 2019, "Objects as points", arXiv 1904.07850).

Each cell of the feature map predicts, for each class, the probability that an object's centre is there, and the
object's size. Peaks among their eight neighbours are the detections: no anchor boxes, and no suppression of overlapping
boxes afterwards. The raw output is two tensors, so that each has its own encoding when quantized:

- ``NAME.heat`` (N, classes, h, w), logits;
- ``NAME.box`` (N, 4, h, w): offset of the centre from the cell's corner, in cells, and width and height, in cells.

A cell can be the centre of one object: the more probable class wins. Every operator of the decoder has a kernel in ONNX
Runtime, LiteRT and OpenVINO; boxes are computed in all cells, which costs less than splitting a cell's number into row
and column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.tasks._protocol import HeadSpec

__all__ = ["Detection", "DetectionDecoder", "boxes_of", "grid"]

_RARE = -2.19  # the logit of 0.1, the initial heat (paper, section 5.1): else the first steps are wasted


class Detection(nn.Module):
    """Maps (N, C, h, w) to heat and box."""

    def __init__(self, head: HeadSpec, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.heat = nn.Conv2d(width, head.classes, 1)
        self.box = nn.Conv2d(width, 4, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        for layer, start in ((self.heat, _RARE), (self.box, 0.5)):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, start)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two raw outputs."""
        inner = functional.relu(self.norm(self.conv(features)))
        return self.heat(inner), self.box(inner)


class DetectionDecoder(nn.Module):
    """Converts heat (N, classes, h, w) and box (N, 4, h, w) to boxes (N, K, 4), scores (N, K), classes (N, K) int32.

    K is the head's number of objects. Boxes are x1, y1, x2, y2 in pixels; scores are descending, and 0 if there are no
    further peaks.
    """

    def __init__(self, head: HeadSpec, size: tuple[int, int]) -> None:
        super().__init__()
        self.objects, self.size = head.objects, size

    def forward(self, heat: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three outputs."""
        peak = functional.max_pool2d(heat, 3, 1, 1) == heat
        score = (torch.sigmoid(heat) * peak.to(heat.dtype)).flatten(2)
        scores, cells = torch.topk(score.amax(1), min(self.objects, score.shape[2]), dim=1)
        boxes = boxes_of(box, self.size).flatten(2).permute(0, 2, 1)
        chosen = torch.gather(boxes, 1, cells.unsqueeze(2).expand(-1, -1, 4))
        kinds = torch.gather(score.argmax(1), 1, cells).to(torch.int32)
        lacking = self.objects - scores.shape[1]
        if lacking > 0:  # a map has fewer cells than the head has objects: its outputs keep their shapes
            chosen = functional.pad(chosen, (0, 0, 0, lacking))
            scores, kinds = functional.pad(scores, (0, lacking)), functional.pad(kinds, (0, lacking))
        return chosen, scores, kinds


def boxes_of(box: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each cell's box (N, 4, h, w): x1, y1, x2, y2 in pixels of an image of ``size``."""
    height, width = box.shape[2:]
    centre = box[:, :2] + grid(height, width, box.device)
    half = box[:, 2:] * 0.5
    cell = torch.tensor([size[1] / width, size[0] / height] * 2, device=box.device).reshape(1, 4, 1, 1)
    return torch.cat([centre - half, centre + half], 1) * cell


def grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return each cell's column and row: (1, 2, h, w) float32."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([columns, rows]).unsqueeze(0)
