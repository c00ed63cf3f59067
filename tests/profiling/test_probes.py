"""Probes are networks of the family that searches propose."""

from __future__ import annotations

import pytest

from edgekd.ir.kernels import counted_macs
from edgekd.measure.prediction.costs import kernel_sort
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.probes import candidates, overhead, peak, usual, width_sweep
from edgekd.students.analysis import kernels_of_arch


@pytest.mark.parametrize(
    "probe", [overhead(), peak(), usual(), *width_sweep(True), *candidates()[:3], *candidates()[-3:]]
)
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
    assert {probe.widths for probe in width_sweep(True)} <= {probe.widths for probe in width_sweep(False)}


def test_networks_are_drawn_from_two_families_and_none_twice():
    drawn = candidates()
    assert len(set(drawn)) == len({probe.name for probe in drawn}) == len(drawn) == 288
    assert [probe.family.name for probe in drawn] == ["resnet"] * 192 + ["mobilenet"] * 96


@pytest.mark.slow
def test_between_them_they_have_the_sorts_of_operators_that_people_bring():
    sorts = {kernel_sort(kernel) for probe in candidates()[-8:] for kernel in probe.kernels()}
    assert sorts == {"conv strided", "conv1x1", "depthwise", "add", "pool", "dense"}


def test_images_are_the_same_each_time():
    task = usual().task
    assert (task.split("calibration").inputs == usual().task.split("calibration").inputs).all()
