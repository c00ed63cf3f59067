"""One's own model: reported as it came, pruned and certified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
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


PRETRAINED = """\
from pathlib import Path

from transformers import ResNetForImageClassification


def build():
    return ResNetForImageClassification.from_pretrained(Path(__file__).with_name("trained"))
"""


@pytest.fixture
def pretrained(edgekd):
    """A folder of `save_pretrained`, of a network made for larger images, and arrays."""
    import torch
    from sklearn.datasets import load_digits
    from transformers import ResNetConfig, ResNetForImageClassification

    digits = load_digits()
    images, labels = (digits.images * 15.9).astype(np.uint8)[..., None], digits.target.astype(np.int64)
    parts = {"train": slice(1200), "validation": slice(1200, 1450), "test": slice(1450, None)}
    arrays = {f"{axis}_{name}": of[rows] for axis, of in (("x", images), ("y", labels)) for name, rows in parts.items()}
    np.savez(edgekd.folder / "digits.npz", **arrays)
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10
    )
    model, rows = ResNetForImageClassification(config).train(), slice(1200)
    pixels = (torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(120):
        drawn = torch.randint(0, 1200, (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels[drawn]).logits, torch.from_numpy(labels[rows])[drawn]).backward()
        optimizer.step()
    model.save_pretrained(edgekd.folder / "trained")
    edgekd.write("my_model.py", PRETRAINED)
    return edgekd


def test_a_pretrained_model_of_transformers_is_compressed_as_init_wrote_it(pretrained):
    begun = pretrained("init", "--force", "--model", "my_model.py:build", "--data", "digits.npz")
    assert begun.returncode == 0, begun.stderr
    assert "weights that `my_model.py:build` returns" in begun.stdout + begun.stderr
    pretrained.change("project.yaml", "  # mean: [123.7, 116.3, 103.5]", "  mean: [127.5]\n  std: [127.5]\n  #")
    pretrained.change("project.yaml", "  per_channel: true", "  #")
    pretrained.change("project.yaml", "epochs: 10 ", "epochs: 1 ")
    pretrained.change(
        "project.yaml", "budget: 30 min,", "budget: 1 h, trials: 1, finalists: 1, batch: 1, reference_archs: 1,"
    )
    pretrained.change("here.yaml", "latency: {p50: 60 % of own}", "latency: {p50: 20 x own}")
    pretrained.change("here.yaml", "[litert/xnnpack, onnxruntime/cpu, openvino/cpu]", "[litert/xnnpack]")
    done = pretrained("compress")
    assert done.returncode == 0, done.stderr
    assert "torchao" not in begun.stderr + done.stderr
    assert "no litert/xnnpack int8" not in done.stderr, "its last image has one pixel"
    (run,) = (pretrained.folder / "runs").iterdir()
    assert json.loads((run / "original.json").read_text())["accuracy"]["value"] > 0.9


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
