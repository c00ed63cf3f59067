"""One head of a task as a task of its own."""

from __future__ import annotations

import pytest

from edgekd.errors import UnknownName
from edgekd.tasks.one_head import OneHead
from edgekd.tasks.shapes import Shapes

TASK = Shapes(train=40, test=10, validation=10, calibration=10, side=32, labelled=0.5)


def test_samples_without_the_label_are_left_out() -> None:
    scene, mask = OneHead(TASK, "scene"), OneHead(TASK, "mask")
    assert scene.spec.plain
    assert scene.spec.metric.name == "top1"
    assert scene.split("train").labels.min() >= 0
    assert 0 < len(scene.split("train")) < 40
    assert mask.split("train").labels.dtype.names == ("mask",)
    assert [head.name for head in mask.spec.heads] == ["mask"]


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(UnknownName, match="masc"):
        _ = OneHead(TASK, "masc").spec
