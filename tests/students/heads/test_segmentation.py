"""Class maps at the image's size."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgekd.students.heads.segmentation import SegmentationDecoder


def test_the_map_is_the_largest_of_the_enlarged_logits() -> None:
    logits = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    (found,) = SegmentationDecoder((16, 24))(logits)
    large = functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), large.argmax(1))
