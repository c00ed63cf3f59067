"""`audio-folder`: a folder of WAV files for each class.

::

    task: {kind: audio-folder, root: words, seconds: 1}

Class folders are in ``root``, or in its folders ``train``, ``test`` and ``val``, as for `image-folder`. Files are PCM
(8, 16, 24 or 32 bits), all of one sample rate. A raw sample has values from -1 to 1, (channels, T).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from edgekd.code_references import ExistingFolder
from edgekd.errors import ConfigurationError, Problem
from edgekd.tasks._protocol import SoundSpec
from edgekd.tasks.class_folders import find_classes
from edgekd.tasks.labelled_files import Found, LabelledFiles
from edgekd.tasks.sample_store import SampleDecoder
from edgekd.tasks.signals.sounds import SOUND_SUFFIXES, Header, decode_sound, header_of

__all__ = ["AudioFolder"]

_MOST_SAMPLES = 1 << 24


class AudioFolder(LabelledFiles):
    """Options of `audio-folder`, and those shared with other tasks of labelled files.

    ``seconds`` is the length of a sample: longer recordings are cropped to the middle, shorter ones padded with zeros
    on both sides; default the longest recording's length. ``rate`` is the sample rate that all files must have (Hz),
    default that of the first. ``channels: 1`` averages a file's channels.
    """

    what: ClassVar[str] = "recordings"
    samples_are: ClassVar[str] = "audio"

    root: ExistingFolder
    seconds: PositiveFloat | None = None
    rate: PositiveInt | None = None
    channels: Literal[1, 2] = 1
    flip: Literal[False] = False

    def _title(self) -> str:
        return self.root.name

    def _origin(self) -> Path:
        return self.root

    def _list(self) -> Found:
        return find_classes(self.root, SOUND_SUFFIXES, self.what)

    def _look(self, data: bytes, path: Path) -> tuple[Path, Header]:
        return path, header_of(data, path)

    def _decoder_for(self, looks: Sequence[tuple[Path, Header]]) -> SampleDecoder:
        spec = self._spec_of(looks)

        def decode(data: bytes, path: Path) -> NDArray[np.float32]:
            return decode_sound(data, spec, path)

        return SampleDecoder(self.what, spec, spec.shape, np.float32, decode)

    def _spec_of(self, looks: Sequence[tuple[Path, Header]]) -> SoundSpec:
        first, header = looks[0]
        rate = self.rate or header.rate
        others = [(path, found.rate) for path, found in looks if found.rate != rate]
        if others:
            source = "`rate` says" if self.rate else f"{first} has"
            more = [Problem(f"{len(others) - _NAMED} more files have another sample rate")]
            raise ConfigurationError(
                [
                    *(
                        Problem(
                            f"{path} has {found} samples a second, and {source} {rate}",
                            f"resample it, for example: ffmpeg -i {path.name} -ar {rate} out.wav",
                        )
                        for path, found in others[:_NAMED]
                    ),
                    *(more if len(others) > _NAMED else []),
                ]
            )
        longest = max(found.samples for _, found in looks)
        samples = longest if self.seconds is None else max(1, round(self.seconds * rate))
        if samples > _MOST_SAMPLES:
            raise ConfigurationError.one(
                f"{self.root}: samples of {samples / rate:.0f} s are too long", "write seconds: 1, or what a model sees"
            )
        return SoundSpec(rate=rate, samples=samples, channels=self.channels)

    def _sound(self) -> SoundSpec:
        spec = self._decoded().spec
        assert isinstance(spec, SoundSpec)
        return spec

    def _raw_range(self) -> tuple[float, float]:
        return -1.0, 1.0


_NAMED = 20
