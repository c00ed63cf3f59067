"""Class maps at the image's size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgekd.students.heads.segmentation import SegmentationDecoder, enlarged


def test_the_map_is_the_largest_of_the_enlarged_logits() -> None:
    logits = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    (found,) = SegmentationDecoder((16, 24))(logits)
    large = functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), large.argmax(1))


@pytest.mark.parametrize("cells", [11, 15, 22, 60])
def test_a_map_of_any_stride_comes_to_the_images_size(cells: int) -> None:
    logits = torch.randn(1, 2, cells, cells, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(logits, (60, 60), mode="bilinear", align_corners=False)
    assert torch.allclose(enlarged(logits, (60, 60)), expected, atol=1e-5)
