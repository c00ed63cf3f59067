"""One's own model: reported as it came, pruned and certified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekd.store.run import Run

pytestmark = pytest.mark.journey

OWN = Path(__file__).parents[2] / "examples" / "own_model"
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets: {latency: {p95: 100 ms, p50: 5 x own}}
"""


TRAINED = """

def trained():
    from pathlib import Path
    from safetensors.torch import load_file
    model = build()
    model.load_state_dict(load_file(Path(__file__).with_name("my_model.safetensors")))
    return model
"""


@pytest.fixture
def own(edgekd):
    shutil.copyfile(OWN / "my_model.safetensors", edgekd.folder / "my_model.safetensors")
    edgekd.write("my_model.py", (OWN / "my_model.py").read_text() + TRAINED)
    edgekd.write("project.yaml", (OWN / "project.yaml").read_text())
    edgekd.change(
        "project.yaml", "model: my_model.py:build\n  weights: my_model.safetensors", "model: my_model.py:trained"
    )
    edgekd.change("project.yaml", "epochs: 10", "epochs: 1")
    edgekd.change(
        "project.yaml",
        "search: {budget: 90 s, seed: 0, finalists: 2}",
        "search: {budget: 1 h, trials: 1, finalists: 1, reference_archs: 1, batch: 1}",
    )
    edgekd.write("budget.yaml", TARGET)
    return edgekd


def test_the_model_is_reported_as_it_came(own):
    done = own("compress", "project.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    original = json.loads((own.folder / "run" / "original.json").read_text())
    assert original["accuracy"]["value"] > 0.95
    assert [observation["p5_us"]["value"] > 0 for observation in original["observations"]] == [True]
    notice, first, *_ = done.stderr.splitlines()
    assert "this project runs code from" in notice
    assert first.startswith("data       ")
    assert "own model" in done.stderr
    assert "left whole `14`: its channels are the model's output" in done.stderr
    assert "at most 2 points below the model as it came" in done.stderr
    assert {limit.metric for limit in Run.open(own.folder / "run").target.limits} == {
        "latency.p50",
        "latency.p95",
        "accuracy",
    }
    (beside,) = [line for line in done.stdout.splitlines() if line.startswith("own model")]
    assert beside.count("% test") == beside.count(" p5") == 2
    finalists = [json.loads(path.read_text()) for path in (own.folder / "run" / "finalists").iterdir()]
    assert any(finalist["candidate"]["plan"].get("untouched") for finalist in finalists)
    assert "hardly better than chance" not in done.stderr
    assert "The model as it came" in (own.folder / "run" / "report.html").read_text()
    replayed = own("search", "--replay", "run")
    assert replayed.returncode == 0, replayed.stdout
