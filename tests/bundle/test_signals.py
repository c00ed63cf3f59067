"""What a bundle says of a signal's input, and that its example reads a WAV file as the task does."""

from __future__ import annotations

import io
import pathlib
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.artefacts import Backend
from edgekd.bundle.example import example_source
from edgekd.bundle.preprocess import preprocess_of
from edgekd.export._protocol import ExportOptions
from edgekd.tasks._protocol import HeadSpec, InputSpec, SoundSpec, TaskSpec
from edgekd.tasks.signals.sounds import decode_sound
from tests.tasks.tones import extensible, tone, write_wav

MODULES = {"io": io, "np": np, "pathlib": pathlib, "sys": sys, "wave": wave}  # as its own lines import them


def spec_of(channels: int = 1) -> TaskSpec:
    sound = SoundSpec(rate=8000, samples=300, channels=channels)  # type: ignore[arg-type]  # 1 or 2
    given = InputSpec(
        name="signal", shape=sound.shape, raw_dtype="float32", raw_range=(-1.0, 1.0), mean=(0.1,), std=(0.5,),
        sound=sound,
    )  # fmt: skip
    return TaskSpec(name="words", input=given, head=HeadSpec(classes=2, labels=("no", "yes")), data="0" * 64)


def test_the_axes_are_a_signals() -> None:
    stated = preprocess_of(spec_of(), ExportOptions(preprocess="stated"), None, None)
    assert (stated.input.layout, stated.input.shape) == ("ntc", (1, 300, 1))
    assert stated.input.steps[-1] == "order the axes as batch, time, channel"
    assert stated.sound is not None
    assert (stated.sound.rate, stated.sound.samples, stated.sound.channels) == (8000, 300, 1)
    assert stated.sound.steps[0] == "its sample rate must be 8000 Hz"
    assert stated.sound.steps[-1].startswith("the middle 300 samples")
    first = preprocess_of(spec_of(), ExportOptions(layout="nchw"), None, None)
    assert (first.input.layout, first.input.shape, first.input.steps) == ("nct", (1, 1, 300), ())


@pytest.mark.parametrize(
    ("seconds", "width", "stored", "channels"),
    [(0.02, 2, 1, 1), (0.05, 1, 1, 1), (0.0375, 3, 2, 1), (0.03, 4, 2, 2)],
)
@pytest.mark.parametrize("stated", [True, False])
def test_the_example_reads_a_wav_file_as_the_task_does(
    seconds: float, width: int, stored: int, channels: int, stated: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    values = np.stack([tone(440, seconds, seed) for seed in range(stored)])
    path = write_wav(tmp_path / "a.wav", values, width=width)
    if width == 3:
        path.write_bytes(extensible(path.read_bytes()))
    spec = spec_of(channels)
    options = ExportOptions(preprocess="stated" if stated else "fold")
    source = example_source("model.onnx", Backend.model_validate("onnxruntime/cpu"), 1, options, spec, None)
    lines = source.partition("samples = np.load")[2].partition("\n\n")[0].partition("\n")[2]
    monkeypatch.setattr(sys, "argv", ["example.py", str(path)])
    given: dict[str, Any] = {
        **MODULES, "samples": {"inputs": np.zeros((1, channels, 300), np.float32)},
    }  # fmt: skip
    exec(lines, given)  # our own text
    raw = decode_sound(path.read_bytes(), spec.input.sound or SoundSpec(rate=1, samples=1), path)[None]
    expected = (raw - 0.1) / 0.5 if stated else raw
    assert given["batch"].dtype == np.float32
    np.testing.assert_allclose(given["batch"], expected.transpose(0, 2, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("stored", "rate", "said"),
    [
        (1, 8000, "the recording has 1 channels, and the model takes 2"),
        (2, 16000, "has 16000 samples a second, and the model takes 8000"),
    ],
)
def test_the_example_says_what_is_wrong_with_a_recording(
    stored: int, rate: int, said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros((stored, 400)), rate)
    onnx = Backend.model_validate("onnxruntime/cpu")
    source = example_source("model.onnx", onnx, 1, ExportOptions(), spec_of(2), None)
    lines = source.partition("samples = np.load")[2].partition("\n\n")[0].partition("\n")[2]
    monkeypatch.setattr(sys, "argv", ["example.py", str(path)])
    with pytest.raises(SystemExit, match=said):
        exec(lines, {**MODULES, "samples": {"inputs": np.zeros((1, 2, 300), np.float32)}})
