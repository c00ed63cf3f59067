"""Files of several inputs whose names and sizes collide with what else is in a graph."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd import plugins
from edgekd.artefacts import Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import Job
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.parity import check_parity
from edgekd.exporting.builder import backend_for
from edgekd.ir.numerics import Precision
from edgekd.students.own import Own
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.named_inputs import NamedInput, packed_inputs

AWKWARD = """
import torch
from torch import nn


class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.ids = nn.Conv2d(1, 8, 3, padding=1), nn.Embedding(9, 8)
        self.token, self.classes = nn.Parameter(torch.ones(1, 8)), nn.Linear(24, 5)
        self.register_buffer("scale", torch.full((1, 8), 0.5))

    def forward(self, picture, mean, pairs, scale, unused=None):
        seen = self.conv(picture).relu().mean((2, 3)) * self.scale + scale
        token = self.token.expand(picture.shape[0], -1) + mean
        words = self.ids(pairs.long()).mean((1, 2)) + pairs.float().mean((1, 2)).unsqueeze(1)
        return self.classes(torch.cat((seen, token, words), 1))


def build():
    torch.manual_seed(0)
    return Awkward().eval()
"""


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize("batch", [1, 4, "dynamic"])
@pytest.mark.parametrize("form", list(Format))
def test_names_and_batches_that_collide_with_a_graph(form, batch, tmp_path, this_computer):
    """Inputs named as operators, buffers and nothing at all, ids of two axes, a forward that reads the batch's size."""
    (tmp_path / "awkward.py").write_text(AWKWARD)
    drawn = np.random.default_rng(0)
    arrays = {
        "picture": drawn.standard_normal((48, 1, 8, 8)),
        "mean": drawn.standard_normal((48, 8)),
        "pairs": drawn.integers(0, 9, (48, 2, 3)),
        "scale": drawn.standard_normal((48, 8)),
        "unused": drawn.standard_normal((48, 3)),
    }
    if form is Format.OPENVINO:
        arrays.pop("unused")  # it has no such input, see below
    named, packed = packed_inputs(arrays, "here")
    family = Own.model_validate({"model": "awkward.py:build"}, context={"folder": tmp_path})
    spec = TaskSpec(name="awkward", input=InputSpec.of_named(named), head=HeadSpec(classes=5), data="0" * 64)
    options, backend, device = ExportOptions(batch=batch), backend_for(form), this_computer.describe()
    plain = new_student(family, family.original(spec), spec, 0)
    exporter = plugins.load("edgekd.exporters", form.value)()
    if form is Format.TFLITE and batch == "dynamic":
        (problem,) = exporter.check(plain, options, backend, device)
        assert "dynamic batch with several inputs (`picture`)" in problem.message
        return
    for precision in (Precision.FLOAT32, Precision.INT8):
        student = calibrate(plain, packed, precision, "percentile", device, backend)
        artefact = exporter.export(student, options, backend, device, tmp_path / f"model{form.suffix}")
        report = check_parity(
            this_computer, Job(artefact=artefact, backend=backend), student, packed, options, tmp_path / "parity"
        )
        assert report.holds, report.detail
        assert report.agree >= 47


@pytest.mark.runtime
def test_openvino_has_no_input_that_nothing_reads(tmp_path, this_computer):
    (tmp_path / "awkward.py").write_text(AWKWARD)
    shapes = {"picture": (1, 8, 8), "mean": (8,), "pairs": (2, 3), "scale": (8,), "unused": (3,)}
    named = [
        NamedInput(name=name, shape=shape, dtype="int32" if name == "pairs" else "float32")
        for name, shape in shapes.items()
    ]
    family = Own.model_validate({"model": "awkward.py:build"}, context={"folder": tmp_path})
    spec = TaskSpec(name="awkward", input=InputSpec.of_named(named), head=HeadSpec(classes=5), data="0" * 64)
    student, backend = new_student(family, family.original(spec), spec, 0), backend_for(Format.OPENVINO)
    with pytest.raises(ConfigurationError, match="OpenVINO drops the input `unused`, which no operator reads"):
        OpenvinoExporter().export(student, ExportOptions(), backend, this_computer.describe(), tmp_path / "model.xml")
