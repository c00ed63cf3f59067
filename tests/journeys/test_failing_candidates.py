"""Candidates that hang the converter, kill it, or crash their runtime: a failed trial each, and the search goes on."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey

FAMILY = """
    import os, signal, sys, time
    from typing import ClassVar

    import torch
    from torch import nn

    from edgekd.ir.space import Arch, Axis, Space
    from edgekd.records import Record

    # trouble starts in the conversion worker only: the host counts, calibrates and trains as with any family
    CONVERTING = getattr(sys.modules["__main__"].__spec__, "name", "") == "edgekd.export.worker"

    class Moody(Record):
        name: ClassVar[str] = "moody"
        inherits: ClassVar[bool] = False

        def space(self, spec):
            return Space(axes=(Axis(name="mood", choices=(0, 1, 2, 3)),))

        def build(self, arch, spec):
            return Net(int(arch["mood"]), spec.head.classes).eval()

    class Net(nn.Module):
        def __init__(self, mood, classes):
            super().__init__()
            self.mood = mood
            self.conv = nn.Conv2d(1, 8 + mood, 3, padding=1)
            self.head = nn.Linear(8 + mood, classes)

        def forward(self, images):
            if CONVERTING and self.mood == 1:
                time.sleep(600)
            if CONVERTING and self.mood == 2:
                os.kill(os.getpid(), signal.SIGSEGV)
            answers = self.head(torch.relu(self.conv(images)).mean((2, 3)))
            if CONVERTING and self.mood == 3:  # the lowest integer over -1 ends ONNX Runtime with SIGFPE
                nothing = (answers * 0).to(torch.int64)
                lowest = nothing + torch.iinfo(torch.int64).min
                answers = answers + (lowest // (nothing - 1)).to(torch.float32)
            return answers
"""
# the command itself, with less patience than the five minutes a conversion may take
HURRIED = """
    import sys
    import edgekd.export.converter as converter

    class Hurried(converter.Converter):
        def __init__(self, scratch):
            super().__init__(scratch, deadline_s=15.0)

    converter.Converter = Hurried
    from brief import measure_briefly
    measure_briefly()
    from edgekd.cli.main import main
    sys.exit(main())
"""


def test_each_is_one_failed_trial(edgekd):
    edgekd.write("plugin/moody.py", textwrap.dedent(FAMILY))
    edgekd.write("plugin/moody-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: moody\nVersion: 1\n")
    edgekd.write("plugin/moody-1.dist-info/entry_points.txt", "[edgekd.families]\nmoody = moody:Moody\n")
    edgekd.environment["PYTHONPATH"] = os.pathsep.join((str(edgekd.folder / "plugin"), str(Path(__file__).parent)))
    edgekd.begin = [sys.executable, str(edgekd.write("hurried.py", textwrap.dedent(HURRIED)))]
    project = (edgekd.folder / "project.yaml").read_text().splitlines()
    project[3] = "student: {family: moody}"
    edgekd.write("project.yaml", "\n".join(project).replace("int8", "float32").replace("trials: 2", "trials: 4") + "\n")

    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = [json.loads(path.read_text()) for path in (edgekd.folder / "run").glob("trials/*.json")]
    ends = {trial["candidate"]["arch"]["mood"]: (trial["outcome"], trial["detail"]) for trial in trials}
    assert {mood: outcome for mood, (outcome, _) in ends.items()} == {
        0: "measured",
        1: "hung",
        2: "crashed",
        3: "crashed",
    }
    assert "no answer within 60 s" in ends[1][1]
    assert "the worker died: SIGSEGV" in ends[2][1]
    assert "SIGFPE" in ends[3][1]
    assert edgekd("search", "--replay", "run").returncode == 0
