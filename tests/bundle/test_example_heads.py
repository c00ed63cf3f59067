"""The example of a bundle with several heads: it runs, in every runtime, and prints an answer a head."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.bundle.example import example_source
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.ir.backends import BACKENDS
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.shapes import Shapes

TASK = Shapes(train=12, test=4, validation=4, calibration=4, side=32)


@pytest.mark.runtime
@pytest.mark.parametrize("name", BACKENDS)
def test_it_answers_for_every_head(name: str, tmp_path: Path) -> None:
    backend, form = Backend.model_validate(name), BACKENDS[name].formats[0]
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})
    student = new_student(family, family.space(TASK.spec).at(0), TASK.spec, 0)
    exporter: Exporter = plugins.load("edgekd.exporters", form.value)()
    model = f"model{Format(form).suffix}"
    exporter.export(student, ExportOptions(), backend, None, tmp_path / model)
    split = TASK.split("validation")
    np.savez(tmp_path / "samples.npz", inputs=split.inputs, labels=split.labels)
    source = example_source(model, backend, 1, ExportOptions(), TASK.spec, None)
    assert max(map(len, source.splitlines())) <= 120
    (tmp_path / "example.py").write_text(source)
    ran = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "scene: class " in ran.stdout
    assert "mask: pixels a class " in ran.stdout
