"""One's own model shrunk round by round, stopped in the middle, until a file is small enough."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

OWN = Path(__file__).parents[2] / "examples" / "own_model"
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets: {size: {file: 64 KiB}}
accuracy: {floor: 0.5}
"""


@pytest.fixture
def own(edgekd):
    for name in ("my_model.py", "my_model.safetensors"):
        shutil.copyfile(OWN / name, edgekd.folder / name)
    edgekd.write("project.yaml", (OWN / "project.yaml").read_text())
    edgekd.change("project.yaml", "epochs: 10", "epochs: 2")
    edgekd.change(
        "project.yaml",
        "search: {budget: 90 s, seed: 0, finalists: 2}",
        "search: {by: iterative, budget: 1 h, iterative: {recover: 1}}",
    )
    edgekd.write("budget.yaml", TARGET)
    return edgekd


def test_it_shrinks_until_it_fits(own):
    code, said = own.interrupted("round 1", 1, "compress", "project.yaml", "--run", "run")
    assert code == 130, said
    run = own.folder / "run"
    first = (run / "rounds" / "01.json").read_bytes()
    done = own("compress", "project.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    assert (run / "rounds" / "01.json").read_bytes() == first
    rounds = [json.loads(path.read_text()) for path in sorted(run.glob("rounds/*.json"))]
    sizes = [record["observations"][0]["size_bytes"] for record in rounds]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 64 * 1024 < sizes[-2]
    assert [record["recovered"] for record in rounds[1:]] == ["short"] * (len(rounds) - 1)
    for before, after in pairwise(rounds):
        changed = [axis for axis in after["arch"] if after["arch"][axis] != before["arch"][axis]]
        assert len(changed) == 1
    (finalist,) = run.glob("finalists/*.json")
    assert json.loads(finalist.read_text())["candidate"]["arch"] == rounds[-1]["arch"]
    assert [stage["stage"] for stage in json.loads((run / "stages.json").read_text())["stages"]] == [
        "inherited", "distill",
    ]  # fmt: skip
    assert "Round by round" in (run / "report.html").read_text()
    replayed = own("search", "--replay", "run")
    assert replayed.returncode == 0, replayed.stdout
    assert "rounds" in replayed.stdout
