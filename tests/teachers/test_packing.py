"""Raw answers as rows."""

from __future__ import annotations

import pytest
import torch

from edgekd.teachers.packing import packed, packing_of, unpacked

RAW = {"scene": torch.randn(2, 3), "things.heat": torch.randn(2, 2, 4, 5), "things.box": torch.randn(2, 4, 4, 5)}


def test_packed_and_unpacked() -> None:
    back = unpacked(packed(RAW), packing_of(RAW))
    assert list(back) == list(RAW)
    assert all(torch.equal(back[name], RAW[name]) for name in RAW)
    with pytest.raises(ValueError, match="don't fit"):
        unpacked(torch.zeros(2, 5), packing_of(RAW))
