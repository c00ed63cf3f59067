"""Recordings and series that a model of one's own is calibrated and scored on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd import api
from edgekd.artefacts import Format
from edgekd.errors import ConfigurationError, UsageError
from edgekd.events import SilentEvents
from edgekd.exporting.data import task_for
from tests.tasks.tones import tone, write_wav, write_waves

SOURCE = """
from torch import nn


def build(channels=1, width=9, stride=4):
    return nn.Sequential(
        nn.Conv1d(channels, 8, width, stride, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )


def of_two():
    return build(2, 3, 1)
"""


@pytest.fixture
def data(folder, monkeypatch):
    """``tones``, recordings of 0.11 s, and ``waves.csv``, series of 40 steps; two classes each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name, hertz in (("low", 400.0), ("high", 2000.0)):
        for number in range(16):
            write_wav(folder / "tones" / name / f"{number}.wav", tone(hertz, 0.11, number))
    write_waves(folder / "waves.csv")
    return folder


def model(channels: int, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(channels, 2, 3), *(after or (nn.AdaptiveAvgPool1d(1), nn.Flatten()))).eval()


@pytest.mark.slow
def test_recordings_get_the_models_length(data):
    found = task_for(model(1), "build", None, data / "tones", (), ())
    given = found.spec.input
    assert (given.name, given.shape, given.raw_dtype, given.mean, given.std) == (
        "signal", (1, 1600), "float32", (0.0,), (1.0,),
    )  # fmt: skip
    assert (found.kind, found.spec.head.labels) == ("top1", ("high", "low"))
    assert found.notes == ("recordings are cropped or padded to 1600 samples, 0.2 s at 8000 a second",)
    given = task_for(model(1), "build", (1, 777), data / "tones", (0.1,), (0.5,)).spec.input
    assert (given.shape, given.mean, given.std, given.sound.samples) == ((1, 777), (0.1,), (0.5,), 777)
    with pytest.raises(UsageError, match="are 1x1600, and --input or the model's file says 3x8x8"):
        task_for(model(3), "build", (3, 8, 8), data / "tones", (), ())
    with pytest.raises(ConfigurationError, match="has 1 channels, and the task 2"):
        task_for(model(2), "build", (2, 800), data / "tones", (), ())
    with pytest.raises(ConfigurationError, match=r"can't take two signals \(1, 1600\)"):
        task_for(model(1, nn.Flatten(), nn.Linear(2 * 798, 2)), "build", None, data / "tones", (), ())


@pytest.mark.slow
def test_series_are_cut_to_the_models_length(data):
    assert task_for(model(2), "build", None, data / "waves.csv", (), ()).spec.input.shape == (2, 40)
    with (data / "waves.csv").open("a") as file:
        file.write("\n40,r0,0.1,0.2,fast")  # series of two lengths are cut to windows that overlap
    cut = task_for(model(2), "build", (2, 10), data / "waves.csv", (), ())
    assert cut.spec.input.shape == (2, 10)
    assert len(cut.split("test")) == 20  # four windows of each of five series
    with pytest.raises(UsageError, match="are 2x10, and --input or the model's file says 3x10"):
        task_for(model(3), "build", (3, 10), data / "waves.csv", (), ())
    with pytest.raises(ConfigurationError, match="no series has 64 steps"):
        task_for(model(2), "build", (2, 64), data / "waves.csv", (), ())


@pytest.mark.slow
def test_runs_of_one_label_that_are_shorter_than_any_window_init_would_choose(data):
    rows = [f"{step // 20},{step % 7},{step % 5},{'slow' if step // 3 % 2 else 'fast'}" for step in range(240)]
    (data / "short.csv").write_text("\n".join(["series,x,y,label", *rows]) + "\n")
    assert task_for(model(2), "build", (2, 3), data / "short.csv", (), ()).spec.input.shape == (2, 3)


@pytest.mark.parametrize("name", ["reviews.csv", "reviews"])
def test_texts_are_refused_with_what_to_do(data, name):
    (data / "reviews.csv").write_text("text,label\nfine,good\n")
    (data / "reviews" / "good").mkdir(parents=True)
    (data / "reviews" / "good" / "1.txt").write_text("fine")
    with pytest.raises(ConfigurationError, match="tokenizer that the model was trained with"):
        task_for(model(1), "build", None, data / name, (), ())


def test_a_folder_of_other_files_is_refused(data):
    (data / "other" / "a").mkdir(parents=True)
    (data / "other" / "a" / "1.bin").touch()
    with pytest.raises(ConfigurationError, match="neither pictures nor recordings"):
        task_for(model(1), "build", None, data / "other", (), ())


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize(("build", "given", "shape"), [("build", "tones", (1, 800)), ("of_two", "waves.csv", (2, 40))])
def test_int8_files_of_all_formats_answer_as_the_model(data, build, given, shape):
    (data / f"sounding_{build}.py").write_text(SOURCE)
    scope: dict = {}
    exec(SOURCE, scope)
    torch.manual_seed(0)
    net = scope[build]()
    split = task_for(net.eval(), build, shape, data / given, (), ()).split("calibration")
    inputs, labels = torch.tensor(split.inputs), torch.tensor(split.labels)
    optimizer = torch.optim.Adam(net.train().parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    save_file(net.state_dict(), data / "w.safetensors")
    answer = api.export_model(
        f"sounding_{build}.py:{build}", weights="w.safetensors", data=given, shape=shape, precisions=["int8"],
        output="out", events=SilentEvents(),
    )  # fmt: skip
    assert [(row.format, row.outcome, row.detail) for row in answer.files] == [(form, "written", "") for form in Format]
    assert answer.accuracy == 1.0
    assert all(row.accuracy == 1.0 and row.parity.agree == row.parity.samples for row in answer.files)
    assert json.loads((data / "out" / "onnx" / "preprocess.json").read_text())["input"]["shape"] == [1, *shape]
    if given == "tones":
        path = write_wav(data / "new.wav", tone(2000.0, 0.15, 99))
        for form in Format:
            example = [sys.executable, str(data / "out" / form.value / "example.py"), str(path)]
            assert subprocess.run(example, capture_output=True, text=True, check=True).stdout == "class high\n"
