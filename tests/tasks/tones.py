"""Small synthetic signals: tones in WAV files, waves in the columns of a CSV file."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 8000


def write_wav(path: Path, values: NDArray[np.floating], rate: int = RATE, width: int = 2) -> Path:
    """``values`` (T,) or (channels, T), from -1 to 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.ascontiguousarray(np.rint(np.atleast_2d(values).T * (2 ** (8 * width - 1) - 1)), "<i4")
    stored = whole.view(np.uint8).reshape(*whole.shape, 4)[..., :width]
    if width == 1:
        stored = stored + 128
    with wave.open(str(path), "wb") as file:
        file.setnchannels(whole.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(stored, np.uint8).tobytes())
    return path


def extensible(data: bytes) -> bytes:
    """A WAV file whose header has the extensible format, as recorders write it for 24 bits and several channels."""
    inner = b"\x16\x00" + data[34:36] + bytes(4) + b"\x01\x00" + bytes.fromhex("000000001000800000aa00389b71")
    body = b"WAVEfmt " + (40).to_bytes(4, "little") + b"\xfe\xff" + data[22:36] + inner + data[36:]
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def tone(hertz: float, seconds: float, seed: int, rate: int = RATE) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * times + rng.uniform(0, 6)) + 0.02 * rng.standard_normal(len(times))


def write_waves(path: Path, series: int = 24, steps: int = 40, split: bool = False) -> Path:
    """Two columns of each series: slow or fast waves."""
    rng, lines = np.random.default_rng(0), ["time,run,x,y,label" + ",split" * split]
    for number in range(series):
        name, turns = ("slow", 2) if number % 2 else ("fast", 9)
        wave = np.sin(np.linspace(0, turns * 6.28, steps) + rng.uniform(0, 6))
        part = ",test" if number < 4 else ",val" if number < 8 else ","
        for step, value in enumerate(wave):
            noise = 0.1 * rng.standard_normal()
            lines.append(f"{step},r{number},{value + noise:.4f},{10 * value:.4f},{name}" + part * split)
    path.write_text("\n".join(lines))
    return path
