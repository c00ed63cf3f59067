"""Float twins against compressed ones, and which operators lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, OperatorTime
from edgekd.measure.never_slower import family_of, never_slower, regressions
from edgekd.testing.fakes import FakeDevice, Script


def operators(*rows):
    return tuple(OperatorTime(name=f"op{i}", kind=kind, time_us=time_us) for i, (kind, time_us) in enumerate(rows))


FLOAT = operators(("CONV_2D", 100.0), ("CONV_2D", 100.0), ("ADD", 10.0), ("FULLY_CONNECTED", 5.0))
INT8 = operators(("CONV_2D", 150.0), ("CONV_2D", 141.0), ("ADD", 19.0), ("FULLY_CONNECTED", 4.0))


def job(name):
    artefact = Artefact(path=Path(f"{name}.tflite"), format=Format.TFLITE, sha256=f"{name:0>64}", size_bytes=1000)
    return Job(artefact=artefact, backend=Backend(runtime="litert", provider="xnnpack"))


def test_a_slower_twin_is_said_and_explained():
    scripts = {"f": Script(operators=FLOAT), "q": Script(operators=INT8)}
    device = FakeDevice({"f": 215.0, "q": 314.0}, outcomes=scripts)
    f, q = device.open().measure([job("f"), job("q")], MeasurePlan(profile=True))
    found = never_slower(f, q, float_bytes=311_000, compressed_bytes=96_000)
    assert not found.faster
    assert found.smaller
    assert found.comparison.ratio == pytest.approx(314 / 215, rel=0.01)
    assert found.regressed == (
        "2 CONV_2D +91 us = 91 % of the loss".replace("91 %", "91%"),
        "1 ADD +9 us = 9% of the loss",
    )


def test_faster_needs_more_than_the_noise():
    device = FakeDevice({"f": 100.0, "q": 99.0})
    f, q = device.open().measure([job("f"), job("q")], MeasurePlan())
    assert never_slower(f, q, noise=0.001).faster
    assert not never_slower(f, q, noise=0.05).faster
    assert not never_slower(f, q, noise=0.001, alpha=1e-12).faster  # of very many
    assert never_slower(f, q).regressions == ()


@pytest.mark.parametrize(
    ("kind", "name", "family"),
    [
        ("CONV_2D", "", "Conv"),
        ("Conv", "", "Conv"),
        ("QLinearConv", "", "Conv"),
        ("FusedConv", "", "Conv"),
        ("Convolution (NHWC, QC8) IGEMM", "", "Conv"),
        ("DEPTHWISE_CONV_2D", "", "DepthwiseConv"),
        ("Fully Connected (NC, F32) GEMM", "", "FullyConnected"),
        ("QGemm", "", "FullyConnected"),
        ("QLinearAdd", "", "Add"),
        ("QuantizeLinear", "", "Quantize"),
        ("DequantizeLinear", "", "Quantize"),
        ("jit_avx2_I8", "Convolution_12", "Conv"),
        ("brgconv_avx512_amx_I8", "stem", "Conv"),
        ("MyOwn", "", "MyOwn"),
    ],
)
def test_families(kind, name, family):
    assert family_of(OperatorTime(name=name, kind=kind, time_us=1.0)) == family


def test_operators_that_only_the_compressed_one_has_count_in_full():
    found = regressions(operators(("Conv", 50.0)), operators(("QLinearConv", 40.0), ("QuantizeLinear", 30.0)))
    assert [(r.family, r.extra_us, r.share) for r in found] == [("Quantize", 30.0, 1.0)]


def test_without_profiles_nothing_is_blamed():
    assert regressions((), INT8) == ()
    assert regressions(FLOAT, ()) == ()
