"""The task audio-folder: WAV files become samples of one length, and what is wrong is reported by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import SoundSpec
from edgekd.tasks.signals.audio_folder import AudioFolder
from edgekd.tasks.signals.sounds import decode_sound
from edgekd.testing.contracts.task import TaskContract
from tests.tasks.tones import RATE, extensible, tone, write_wav


def fill(root: Path, each: int = 12, rate: int = RATE) -> Path:
    """Low and high tones of a tenth of a second."""
    for name, hertz in (("low", 300.0), ("high", 1500.0)):
        for number in range(each):
            write_wav(root / name / f"{number}.wav", tone(hertz, 0.1, number + round(hertz)), rate)
    return root


def made(root: Path, **options: object) -> AudioFolder:
    return AudioFolder.model_validate({"root": root, **options})


class TestAudioFolder(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        root = fill(tmp_path / "tones")
        return lambda: made(root, calibration=8)


@pytest.mark.parametrize(("width", "step"), [(1, 2**-7), (2, 2**-15), (3, 2**-23), (4, 2**-24)])
def test_all_widths_are_the_same_sound(tmp_path, width, step):
    values = tone(440, 0.05, 0)
    path = write_wav(tmp_path / "a.wav", values, width=width)
    found = decode_sound(path.read_bytes(), SoundSpec(rate=RATE, samples=len(values)), path)
    assert found.dtype == np.float32
    assert float(np.abs(found[0] - values).max()) <= 2 * step


def test_a_long_recording_gives_its_middle_and_a_short_one_has_zeros_on_both_sides(tmp_path):
    path = write_wav(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 101))
    data = path.read_bytes()
    (middle,) = decode_sound(data, SoundSpec(rate=RATE, samples=11), path)
    assert np.allclose(middle, np.linspace(-0.05, 0.05, 11), atol=1e-4)
    (whole,) = decode_sound(data, SoundSpec(rate=RATE, samples=106), path)
    assert np.flatnonzero(whole == 0).tolist() == [0, 1, 52, 103, 104, 105]


def test_channels_are_averaged_unless_two_are_asked_for(tmp_path):
    both = np.stack([np.full(20, 0.5), np.full(20, -0.25)])
    path = write_wav(tmp_path / "a.wav", both)
    one = decode_sound(path.read_bytes(), SoundSpec(rate=RATE, samples=20), path)
    two = decode_sound(path.read_bytes(), SoundSpec(rate=RATE, samples=20, channels=2), path)
    assert np.allclose(one, 0.125, atol=1e-4)
    assert np.allclose(two, both, atol=1e-4)


def test_a_task_of_two_channels_with_its_classes_in_an_order(tmp_path):
    for name, hertz in (("low", 300.0), ("high", 1500.0)):
        for number in range(12):
            both = np.stack([tone(hertz, 0.05, number), tone(hertz, 0.05, number + 50)])
            write_wav(tmp_path / "tones" / name / f"{number}.wav", both)
    task = made(tmp_path / "tones", channels=2, labels=["low", "high"])
    assert task.spec.input.shape == (2, 400)
    assert task.spec.head.labels == ("low", "high")
    train = task.split("train")
    turns = np.abs(np.diff(np.sign(train.inputs[:, 0]), axis=1)).sum(1)
    assert turns[train.labels == 0].max() < turns[train.labels == 1].min()
    with pytest.raises(ConfigurationError, match="has the class `high`, which `labels` doesn't name"):
        _ = made(tmp_path / "tones", labels=["low"]).spec


def test_the_length_is_the_longest_unless_it_is_given(tmp_path):
    root = fill(tmp_path / "tones")
    write_wav(root / "low" / "long.wav", tone(300, 0.2, 99))
    assert made(root).spec.input.shape == (1, 1600)
    spec = made(root, seconds=0.05).spec.input
    assert (spec.shape, spec.raw_dtype, spec.raw_range) == ((1, 400), "float32", (-1.0, 1.0))
    assert spec.sound == SoundSpec(rate=RATE, samples=400)


def test_files_of_another_sample_rate_are_named(tmp_path):
    root = fill(tmp_path / "tones")
    write_wav(root / "low" / "z.wav", tone(300, 0.1, 0, 16000), 16000)
    with pytest.raises(ConfigurationError, match=r"z\.wav has 16000 samples a second, and .*0\.wav has 8000"):
        _ = made(root).spec
    with pytest.raises(ConfigurationError, match=r"has 8000 samples a second, and `rate` says 16000"):
        _ = made(root, rate=16000).spec


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read as a WAV file: it ends too early"),
        (b"RIFFxxxxWAVEjunk", "can't be read as a WAV file"),
        ("empty", "has no samples"),
        ("cut", "ends after 750 of 800 samples"),
        ("wide", "has values of 40 bits"),
        ("streamed", "doesn't say how long it is"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path, content, said):
    root = fill(tmp_path / "tones")
    path = root / "low" / "bad.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_wav(path, np.zeros(0) if content == "empty" else tone(300, 0.1, 5))
        data = path.read_bytes()
        if content == "cut":
            path.write_bytes(data[:-100])
        if content == "wide":
            path.write_bytes(data[:34] + b"\x28\x00" + data[36:])
        if content == "streamed":
            path.write_bytes(data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:])
    with pytest.raises(ConfigurationError, match=rf"bad\.wav {said}"):
        _ = made(root).spec


def test_recordings_are_listed_with_their_splits_and_decoded_once(tmp_path, monkeypatch):
    root, calls = fill(tmp_path / "tones"), list[Path]()
    from edgekd.tasks.signals import audio_folder

    was = audio_folder.decode_sound
    monkeypatch.setattr(audio_folder, "decode_sound", lambda *given: calls.append(given[2]) or was(*given))
    task = made(root)
    said = task.prepare(lambda *_: None, lambda: False)
    assert said.startswith("24 recordings of 2 classes, 75 KiB in ")
    assert len(task.split_list().splitlines()) == 25
    assert made(root).spec == task.spec
    assert len(calls) == 24


def test_integers_in_the_extensible_format_are_read(tmp_path):
    values = tone(440, 0.01, 0)
    path = write_wav(tmp_path / "a.wav", values)
    data, spec = path.read_bytes(), SoundSpec(rate=RATE, samples=len(values))
    assert np.array_equal(decode_sound(extensible(data), spec, path), decode_sound(data, spec, path))


def test_alike_recordings_of_silence_are_refused_with_a_reason(tmp_path):
    root = tmp_path / "silent"
    for name in ("a", "b"):
        for number in range(10):
            write_wav(root / name / f"{number}.wav", np.full(40 + number, 0.3))
    with pytest.raises(ConfigurationError, match=r"all values are the same|no sample is left|none of"):
        _ = made(root, seconds=0.005).spec
