"""WAV decoding with the standard library and numpy: a file to a raw sample, as in `SoundSpec`."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import SoundSpec

__all__ = ["SOUND_SUFFIXES", "Header", "decode_sound", "header_of"]

SOUND_SUFFIXES = (".wav", ".wave")

_EXTENSIBLE, _PCM = b"\xfe\xff", b"\x01\x00"  # format tags
_WIDEST = 4  # bytes a value
_UNKNOWN_LENGTH = 0x7FFFFFFF - 64  # of the data in bytes, as streams have it
_AS_PCM = "write it as PCM, for example: ffmpeg -i {name} -c:a pcm_s16le out.wav"


class Header(NamedTuple):
    """Header of a WAV file."""

    rate: int  # Hz
    samples: int  # of each channel
    channels: int
    width: int  # bytes a value


def header_of(data: bytes, path: Path) -> Header:
    """Return the header of a WAV file. Raises ConfigurationError with the path if it is invalid, or has no samples."""
    header, _ = _opened(data, path)
    return header


def decode_sound(data: bytes, spec: SoundSpec, path: Path) -> NDArray[np.float32]:
    """Return a recording (channels, samples), from -1 to 1.

    Raises ConfigurationError with the path if it doesn't fit.
    """
    header, frames = _opened(data, path)
    if header.rate != spec.rate:
        raise ConfigurationError.one(
            f"{path} has {header.rate} samples a second, and the task {spec.rate}",
            f"resample it, for example: ffmpeg -i {path.name} -ar {spec.rate} out.wav",
        )
    if spec.channels not in (1, header.channels):
        raise ConfigurationError.one(
            f"{path} has {header.channels} channels, and the task {spec.channels}", "write channels: 1"
        )
    values = _values(frames, header)
    if spec.channels == 1 and header.channels > 1:
        values = values.mean(0, keepdims=True, dtype=np.float32)
    return _centred(values, spec.samples)


def _opened(data: bytes, path: Path) -> tuple[Header, bytes]:
    try:
        with wave.open(io.BytesIO(_plain(data))) as file:
            header = Header(file.getframerate(), file.getnframes(), file.getnchannels(), file.getsampwidth())
            frames = file.readframes(header.samples)
    except (wave.Error, EOFError, ValueError) as error:
        reason = str(error) or "it ends too early"
        raise ConfigurationError.one(
            f"{path} can't be read as a WAV file: {reason}", _AS_PCM.format(name=path.name)
        ) from error
    if header.width > _WIDEST:
        raise ConfigurationError.one(f"{path} has values of {8 * header.width} bits", _AS_PCM.format(name=path.name))
    whole = len(frames) // (header.channels * header.width)
    if not whole or header.rate < 1:
        raise ConfigurationError.one(f"{path} has no samples", "take it out, or record it again")
    if whole < header.samples and header.samples * header.channels * header.width >= _UNKNOWN_LENGTH:
        raise ConfigurationError.one(
            f"{path} doesn't say how long it is: it was written as a stream", _AS_PCM.format(name=path.name)
        )
    if whole < header.samples:
        raise ConfigurationError.one(
            f"{path} ends after {whole} of {header.samples} samples", "it was cut off: copy it again, or take it out"
        )
    return header, frames


def _plain(data: bytes) -> bytes:
    """Convert a file in the extensible format with integers to the plain one, the only one the reader knows."""
    at = data.find(b"fmt ", 12)
    tag, inner = data[at + 8 : at + 10], data[at + 32 : at + 34]
    if at >= 0 and tag == _EXTENSIBLE and inner == _PCM:
        return data[: at + 8] + _PCM + data[at + 10 :]
    return data


def _values(frames: bytes, header: Header) -> NDArray[np.float32]:
    """Convert integers of 1 to 4 bytes to (channels, samples) from -1 to 1. Those of one byte are unsigned."""
    stored = np.frombuffer(frames, np.uint8).reshape(header.samples, header.channels, header.width)
    wide = np.zeros((*stored.shape[:2], 4), np.uint8)
    wide[..., 4 - header.width :] = stored - 128 if header.width == 1 else stored
    return np.ascontiguousarray(wide.view("<i4")[..., 0].T.astype(np.float64) / 2**31, np.float32)


def _centred(values: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Return the middle part of (C, T), or all of it padded with zeros on both sides."""
    over = values.shape[1] - samples
    if over >= 0:
        return np.ascontiguousarray(values[:, over // 2 : over // 2 + samples])
    before = -over // 2
    return np.pad(values, ((0, 0), (before, -over - before)))
