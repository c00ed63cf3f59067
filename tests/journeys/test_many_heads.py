"""Other heads than one of classes: searched, certified, verified and run, in the three runtimes' formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.journeys.conftest import assert_every_file_agrees

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]

TASK = "task: {kind: shapes, train: 192, validation: 48, test: 48, calibration: 32, side: 32}"


def test_a_search_over_three_heads_ends_in_a_bundle_that_runs(edgekd):
    edgekd.change("project.yaml", "task: {kind: digits, train_limit: 256}", TASK)
    edgekd.change("project.yaml", "teacher: {kind: train, width: 16, epochs: 2}\n", "")
    edgekd.change("project.yaml", "loss: {kd: {temperature: 4, weight: 0.5}}", "loss: ce, balance: uncertainty")
    edgekd.write(
        "project.yaml", (edgekd.folder / "project.yaml").read_text() + "export: {formats: [onnx, tflite, openvino]}\n"
    )
    edgekd.change("target.yaml", "256 KiB", "2 MiB")
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode in (0, 6), done.stderr  # a busy machine may leave the verdict open
    bundle = edgekd.folder / "run" / "bundle"
    certificate = json.loads((bundle / "certificate.json").read_text())
    assert set(certificate["accuracy"]["parts"]) == {"scene top1", "things mAP", "mask mIoU"}
    assert len(certificate["others"]) == 2
    assert_every_file_agrees(certificate)
    assert edgekd("verify", "run/bundle").returncode in (0, 6)
    assert edgekd("search", "--replay", "run").returncode == 0
    edgekd.begin = [edgekd.begin[0], "run/bundle/example.py"]
    shown = edgekd()
    assert shown.returncode == 0, shown.stderr


OWN = """
import torch
from torch import nn


def convolution(given, made, stride=1):
    return nn.Sequential(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU())


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = convolution(3, 16), convolution(16, 32, 2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last, self.classes = convolution(48, 16), nn.Conv2d(16, 4, 1)

    def forward(self, images):
        fine = self.first(images)
        return self.classes(self.last(torch.cat([fine, self.up(self.second(fine))], 1)))


def build():
    return UNet()
"""


def test_a_segmentation_network_of_ones_own_is_pruned_and_certified(edgekd):
    edgekd.write("unet.py", OWN)
    made: dict[str, Any] = {}
    exec(OWN, made)
    torch.manual_seed(0)
    torch.save(made["build"]().state_dict(), edgekd.folder / "unet.pt")
    edgekd.change("project.yaml", "task: {kind: digits, train_limit: 256}", TASK.replace("}", ", heads: [mask]}"))
    edgekd.change("project.yaml", "teacher: {kind: train, width: 16, epochs: 2}\n", "")
    edgekd.change(
        "project.yaml",
        "{family: resnet, stages: 2, space: {width: [8, 16], depth: [1, 1]}}",
        "{family: pruned, model: unet.py:build, weights: unet.pt, ratios: [0.5, 1.0]}",
    )
    edgekd.change("project.yaml", "loss: {kd: {temperature: 4, weight: 0.5}}", "loss: ce")
    edgekd.write(
        "project.yaml", (edgekd.folder / "project.yaml").read_text() + "export: {formats: [onnx, tflite, openvino]}\n"
    )
    done = edgekd("compress", "project.yaml", "--run", "run")
    assert done.returncode in (0, 6), done.stderr  # a busy machine may leave the verdict open
    certificate = json.loads((edgekd.folder / "run" / "bundle" / "certificate.json").read_text())
    read = json.loads((edgekd.folder / "run" / "bundle" / "preprocess.json").read_text())
    assert [output["name"] for output in read["outputs"]] == ["mask"]
    assert_every_file_agrees(certificate)
    assert edgekd("verify", "run/bundle").returncode in (0, 6)
    assert edgekd("search", "--replay", "run").returncode == 0
