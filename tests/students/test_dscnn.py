"""The family dscnn on pictures, signals and spectrograms, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgekd.errors import ConfigurationError
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Family
from edgekd.students.analysis import analyse_arch
from edgekd.students.dscnn import DsCnn
from edgekd.students.log_mel import LogMel
from edgekd.tasks._protocol import HeadSpec, InputSpec, SoundSpec, TaskSpec
from edgekd.testing.contracts.family import FamilyContract

SMALL = {"space": {"width": [8, 16], "depth": [1, 2], "stem_stride": [2]}}
SOUND = InputSpec(
    name="signal", shape=(1, 2000), raw_dtype="float32", raw_range=(-1.0, 1.0), std=(0.1,),
    sound=SoundSpec(rate=8000, samples=2000),
)  # fmt: skip


def spec_of(given: InputSpec) -> TaskSpec:
    return TaskSpec(name="t", input=given, head=HeadSpec(classes=5), data="0" * 64)


class TestPictures(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: DsCnn.model_validate(SMALL)


class TestSignals(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: DsCnn.model_validate(SMALL)

    @pytest.fixture
    def spec(self) -> TaskSpec:
        return spec_of(InputSpec(name="signal", shape=(3, 64), raw_dtype="float32"))


class TestSpectrograms(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: DsCnn.model_validate({**SMALL, "log_mel": {"mels": 20}})

    @pytest.fixture
    def spec(self) -> TaskSpec:
        return spec_of(SOUND)


def test_convolutions_of_a_signal_are_over_time() -> None:
    family, spec = DsCnn.model_validate(SMALL), spec_of(InputSpec(shape=(3, 64)))
    shapes = {
        name: tuple(value.shape) for name, value in family.build(family.space(spec).at(0), spec).named_parameters()
    }
    assert shapes["stem.conv.weight"] == (8, 3, 9)
    assert shapes["blocks.0.conv1.weight"] == (8, 1, 9)
    assert shapes["blocks.0.conv2.weight"] == (8, 8, 1)


def test_lengths_of_filters_are_options() -> None:
    family, spec = DsCnn.model_validate({**SMALL, "kernel": 5, "stem_kernel": 11}), spec_of(InputSpec(shape=(3, 64)))
    network = family.build(family.space(spec).at(0), spec)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert (shapes["stem.conv.weight"], shapes["blocks.0.conv1.weight"]) == ((8, 3, 11), (8, 1, 5))
    assert network(torch.zeros(2, 3, 64)).shape == (2, 5)


def test_the_front_end_has_a_range_and_a_hop() -> None:
    front = LogMel(mels=12, low=500, high=2000, hop=0.008)
    assert front.shape(SOUND) == (1, 12, 1 + (2000 - 256) // 64)
    times = torch.arange(2000) / 8000
    heard = [
        float(front.module(SOUND)(torch.sin(6.2832 * hertz * times)[None, None]).max()) for hertz in (1000, 200, 3000)
    ]
    assert heard[0] > 5 * max(heard[1:])


def test_the_front_end_is_a_log_mel_spectrogram() -> None:
    """Beside numpy's own Fourier transform."""
    options = LogMel(mels=20)
    front, rng = options.module(SOUND), np.random.default_rng(0)
    signal = rng.standard_normal((2, 1, 2000)).astype(np.float32)
    found = front(torch.from_numpy(signal)).numpy()
    assert found.shape == (2, *options.shape(SOUND)) == (2, 1, 20, 14)
    window = np.hanning(257)[:256]
    window /= np.sqrt(window @ window)
    frames = np.stack([signal[:, 0, start : start + 256] * window for start in range(0, 2000 - 255, 128)], 2)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    assert power.mean() == pytest.approx(1.0, rel=0.1)  # of a signal of variance 1
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731  # as in the definition
    corners = 700 * (10 ** (np.linspace(mel(20.0), mel(4000.0), 22) / 2595) - 1)
    bins = np.arange(129) * 8000 / 256
    filters = np.stack([np.interp(bins, corners[at : at + 3], [0, 1, 0]) for at in range(20)])
    filters /= filters.sum(1, keepdims=True)
    expected = np.log1p(np.einsum("mb,nbf->nmf", filters, power) / 1e-4)
    assert np.allclose(found[:, 0], expected, rtol=1e-3, atol=1e-2)


def test_silence_is_zero_and_a_tone_is_where_it_belongs() -> None:
    front = LogMel(mels=20).module(SOUND)
    assert float(front(torch.zeros(1, 1, 2000)).abs().max()) < 1e-6
    times = torch.arange(2000) / 8000
    at = [int(front(torch.sin(6.2832 * hertz * times)[None, None])[0, 0, :, 5].argmax()) for hertz in (200, 1000, 3000)]
    assert at == sorted(set(at))


def test_constants_of_the_front_end_are_counted_in_float16() -> None:
    """In an int8 file they are most of the bytes."""
    with_front, bare = DsCnn.model_validate({**SMALL, "log_mel": {"mels": 20}}), DsCnn.model_validate(SMALL)
    arch = bare.space(spec_of(SOUND)).at(0)
    front = with_front.log_mel.module(SOUND)  # type: ignore[union-attr]
    floats = sum(value.numel() for value in front.buffers())
    picture = spec_of(InputSpec(shape=front(torch.zeros(1, 1, 2000)).shape[1:]))
    assert all(torch.equal(value, value.half().float()) for value in front.buffers())
    for precision in (Precision.FLOAT32, Precision.INT8, Precision.FLOAT16):
        one = analyse_arch(with_front, arch, spec_of(SOUND), precision)
        other = analyse_arch(bare, arch, picture, precision)
        assert one.weight_bytes - other.weight_bytes == 2 * floats


@pytest.mark.parametrize(
    ("options", "given", "said"),
    [
        ({"log_mel": {}}, InputSpec(shape=(3, 32, 32)), "takes a signal of one channel"),
        ({"log_mel": {}}, InputSpec(shape=(1, 2000)), "needs the sample rate"),
        ({"log_mel": {"rate": 8000, "window": 1.0}}, InputSpec(shape=(1, 2000)), "a window of 8000 samples"),
        ({"log_mel": {"high": 5000}}, SOUND, "20 to 5000 Hz is no range below 4000 Hz"),
        ({"log_mel": {"mels": 120}}, SOUND, "120 filters are too many"),
        ({"kernel": 4}, SOUND, "student.kernel is 4: an odd length"),
        ({}, InputSpec(shape=(6,)), "takes images"),
        ({"log_mel": {"hop": 0.1}}, SOUND, "need spectrograms of at least 4 mels and frames, and these have 3"),
        ({"stages": 4}, InputSpec(shape=(2, 6)), "need signals of at least 8 steps, and these have 6"),
    ],
)
def test_what_does_not_fit_is_reported(options: dict[str, object], given: InputSpec, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DsCnn.model_validate(options).space(spec_of(given))
