"""A recipe of stages that train several times, killed in the middle of each: it ends with the very weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

# the probe picks the fastest memory layout by a clock, and two layouts differ in the last bits: it is left out here
SCRIPT = """
import sys
from pathlib import Path
from edgekd.distill import loop
from edgekd.distill.autotune import Execution
loop.probe = lambda *_, **__: Execution(precision="float32", channels_last=False)
from edgekd.api import distill
from brief import measure_briefly
measure_briefly()
distill(Path("project.yaml"), run=Path(sys.argv[1]))
"""
RECIPE = """\
recipe:
  - layerwise: {epochs: 4, batch_size: 32, precision: float32, join: {epochs: 2, batch_size: 32, precision: float32}}
  - mutual: {epochs: 6, batch_size: 32, precision: float32, schedule: one-cycle, clip: 1.0}
  - quantize: {precision: int8, weight_bits: 4, train: {epochs: 8, batch_size: 32}}
"""


TEACHERS = """\
teacher:
  kind: train
  width: 12
  epochs: 8
  teacher: {kind: train, width: 16, epochs: 8}
"""


def weights(run: Path) -> list[str]:
    """Of every stage's student, by its folder: the keys are the same in any two runs of one project."""
    return [json.loads(path.read_text())["weights"] for path in sorted(run.glob("students/*/student.json"))]


def killed(
    begin: Sequence[str], folder: Path, environment: dict[str, str], at: str, within: Path | None = None
) -> bool:
    """Kill with SIGKILL once a new file or folder is there. False where the process ended before."""
    place = within or folder / "parts"
    before = set(place.glob(at))
    process = subprocess.Popen(begin, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if set(place.glob(at)) - before:
                return True
            time.sleep(0.005)
        return False
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scripted(edgekd):
    """The project as a script without a clock in it; its weights are the same on every run."""
    edgekd.change("project.yaml", "width: [8, 16]", "width: [8, 8]")
    edgekd.write("run.py", SCRIPT)
    edgekd.environment["PYTHONPATH"] = str(Path(__file__).parent)  # of brief.py
    edgekd.begin = [sys.executable, "run.py"]
    return edgekd


def test_a_recipe_killed_in_its_trainings_ends_the_same(scripted):
    edgekd = scripted
    text = (edgekd.folder / "project.yaml").read_text()
    start, end = text.index("recipe:"), text.index("search:")
    edgekd.write("project.yaml", text[:start] + RECIPE + text[end:])
    whole = edgekd("whole")
    assert whole.returncode == 0, whole.stderr
    written = json.loads((edgekd.folder / "whole" / "stages.json").read_text())
    assert [stage["stage"] for stage in written["stages"]] == ["layerwise", "mutual", "quantize"]
    assert all(stage["accuracy"]["kind"] == "artefact" and stage["p5_us"]["value"] > 0 for stage in written["stages"])
    assert "Stage by stage" in (edgekd.folder / "whole" / "report.html").read_text()
    begin = [*edgekd.begin, "parts"]
    for at in ("stages/*/training-2/*/checkpoint.safetensors", "stages/*/training-3/*/checkpoint.safetensors"):
        assert killed(begin, edgekd.folder, edgekd.environment, at), at
    finished = edgekd.folder / "parts" / "students"
    for stage, before in (("mutual", 1), ("quantize", 2)):
        assert killed(begin, edgekd.folder, edgekd.environment, "stages/*/checkpoint.safetensors"), stage
        assert len(list(finished.glob("*/student.json"))) == before, stage
    assert not (edgekd.folder / "parts" / "outcome.json").exists()
    done = edgekd("parts")
    assert done.returncode == 0, done.stderr
    assert len(weights(edgekd.folder / "whole")) == 3
    assert weights(edgekd.folder / "parts") == weights(edgekd.folder / "whole")


def test_a_chain_of_teachers_killed_in_its_trainings_ends_the_same(scripted, tmp_path):
    edgekd = scripted
    edgekd.change("project.yaml", "teacher: {kind: train, width: 16, epochs: 2}\n", TEACHERS)
    ended = {}
    for run in ("whole", "parts"):
        edgekd.environment["XDG_CACHE_HOME"] = str(tmp_path / f"cache-{run}")  # each trains its own teachers
        if run == "parts":
            cache, begin = tmp_path / "cache-parts" / "edgekd" / "teachers", [*edgekd.begin, run]
            for trained in (0, 1):  # in the first link of the chain, then in the second
                at = "stages/*/checkpoint.safetensors"
                assert killed(begin, edgekd.folder, edgekd.environment, at, cache), f"link {trained + 1}"
                assert len(list(cache.glob("students/*/student.json"))) == trained
        done = edgekd(run)
        assert done.returncode == 0, done.stderr
        ended[run] = edgekd.folder / run
    written = json.loads((ended["parts"] / "teachers.json").read_text())
    assert [teacher["name"] for teacher in written["teachers"]] == [
        f"resnet of width {w}, trained here" for w in (16, 12)
    ]
    assert "Who taught" in (ended["parts"] / "report.html").read_text()
    assert written == json.loads((ended["whole"] / "teachers.json").read_text())
    assert weights(ended["parts"]) == weights(ended["whole"])
