"""Pictures hold what was measured, and are left out where nothing was."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgekd.profiling.page import page_text
from edgekd.profiling.pictures import roofline_picture, sustained_picture, width_sweep_picture
from tests.profiling.conftest import behaviour, deployment, memory


@pytest.mark.parametrize(
    ("picture", "circles", "lines"),
    [
        (roofline_picture([deployment()], memory()), 16, 1),
        (roofline_picture([deployment()], None), 16, 0),
        (width_sweep_picture([deployment(), deployment(quick=True)]), 32, 2),
        (sustained_picture(behaviour()), 0, 1),
    ],
)
def test_every_network_has_its_dot(picture, circles, lines):
    root = ElementTree.fromstring(picture)
    assert len(root.findall(".//circle")) == circles
    assert len(root.findall(".//polyline")) == lines


def test_nothing_measured_is_no_picture():
    assert roofline_picture([], memory()) == width_sweep_picture([]) == ""
    assert sustained_picture(behaviour().but(sustained=())) == ""


def test_the_page_needs_no_network_and_escapes_names(report):
    text = page_text(report(device="<script>alert(1)</script>"))
    assert "<script>" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert "beside work that keeps all other cores busy (3)" in text
    assert "; 41 to 46 C" in text
    assert "9 Conv" in text
    assert "none reported: depthwise" in text


def test_a_device_that_refused_everything_still_has_a_page(report):
    refused = deployment(refused="no runtime", width_sweep=(), overhead=None, peak=None)
    text = page_text(report(deployments=(refused,), memory=None, behaviour=None))
    assert "no runtime" in text
    assert "<svg" not in text
