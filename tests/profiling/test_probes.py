"""Probes are networks of the family that searches propose."""

from __future__ import annotations

import pytest

from edgekd.kernels import counted_macs
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.probes import candidates, overhead, peak, stairs, usual
from edgekd.students.analysis import kernels_of_arch


@pytest.mark.parametrize("probe", [overhead(), peak(), usual(), *stairs(True), *candidates()[:3]])
def test_each_is_one_arch_of_its_family(probe):
    assert probe.family.space(probe.task.spec).size == 1
    assert counted_macs(kernels_of_arch(probe.family, probe.arch(), probe.task.spec)) > 0


def test_the_usual_one_is_the_public_yardstick():
    probe = usual()
    macs = counted_macs(kernels_of_arch(probe.family, probe.arch(), probe.task.spec))
    assert macs == pytest.approx(12.5e6, rel=0.01)


def test_one_has_depthwise_convolutions_and_no_others(tmp_path):
    probe = Depthwise(tmp_path)
    kinds = [kernel.kind for kernel in probe.kernels()]
    assert kinds.count("depthwise") == 4
    assert set(kinds) <= {"depthwise", "pool", "dense", "move", "other"}
    assert kinds.count("pool") == 2
    assert probe.family.build(probe.arch(), probe.task.spec)[0].out_channels == 64


def test_a_quick_look_is_a_part_of_the_whole():
    assert {probe.widths for probe in stairs(True)} <= {probe.widths for probe in stairs(False)}
    assert len({probe.widths + probe.depths for probe in candidates()}) == len(candidates()) == 192


def test_images_are_the_same_each_time():
    task = usual().task
    assert (task.split("calibration").inputs == usual().task.split("calibration").inputs).all()
