"""Raw answers as rows."""

from __future__ import annotations

import pytest
import torch

from edgekd.tasks._protocol import HeadSpec
from edgekd.teachers.packing import packed, packing_of, raw_of, unpacked

RAW = {"scene": torch.randn(2, 3), "things.heat": torch.randn(2, 2, 4, 5), "things.box": torch.randn(2, 4, 4, 5)}
THINGS = HeadSpec(name="things", kind="detection", classes=2, objects=4)


def test_packed_and_unpacked() -> None:
    back = unpacked(packed(RAW), packing_of(RAW))
    assert list(back) == list(RAW)
    assert all(torch.equal(back[name], RAW[name]) for name in RAW)
    with pytest.raises(ValueError, match="don't fit"):
        unpacked(torch.zeros(2, 5), packing_of(RAW))


def test_networks_may_name_their_answers_or_not() -> None:
    heads = (HeadSpec(name="scene", classes=3), THINGS)
    assert raw_of(RAW, heads) == RAW
    pair = (RAW["things.heat"], RAW["things.box"])
    assert list(raw_of(pair, (THINGS,)) or {}) == ["things.heat", "things.box"]
    assert raw_of(pair[0], (THINGS,)) is None
    assert raw_of({"scene": RAW["scene"]}, heads) is None
