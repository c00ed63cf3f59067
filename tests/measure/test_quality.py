"""What is said about a batch's own quality."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, SentinelReading
from edgekd.measure import warnings
from edgekd.measure.quality import assess
from edgekd.testing.fakes import FakeDevice, TimingNoise

JOB = Job(
    artefact=Artefact(path=Path("m.tflite"), format=Format.TFLITE, sha256="1" * 64, size_bytes=5000),
    backend=Backend(runtime="litert", provider="xnnpack"),
)


def batch(noise, processes=5, **options):
    device = FakeDevice({"m": 100.0}, noise=noise, **options)
    return device.open().measure([JOB, JOB], MeasurePlan(processes=processes))


def codes(quality):
    return {caution.code for caution in quality.cautions}


def test_a_quiet_batch_has_no_caution():
    quality = assess(batch(TimingNoise(low=0.001, body=0.02), load_average=0.1), cores=4)
    assert quality.cautions == ()
    assert not quality.unstable
    assert not quality.noisy


def test_each_disturbance_has_its_caution():
    assert "noisy" in codes(assess(batch(TimingNoise(body=0.3))))
    assert "busy" in codes(assess(batch(TimingNoise(), load_average=3.0), cores=4))
    assert "too-few" in codes(assess(batch(TimingNoise(), processes=3)))
    assert "spread" in codes(assess(batch(TimingNoise(low=0.05))))


def test_a_machine_that_shifts_is_unstable():
    quality = assess(batch(TimingNoise(throttle_after_s=1.5, throttle_by=0.4), processes=6))
    assert quality.unstable
    assert "moved" in codes(quality)
    assert quality.cautions[0].message.endswith("% between the earlier and the later half of the processes")


def test_quotas_and_heat_are_seen_where_the_low_quantile_is_calm():
    calm = batch(TimingNoise(low=0.0005, body=0.01))
    held_up = [m.but(processes=[p.but(mean_us=2.0 * p.p50_us) for p in m.processes]) for m in calm]
    assert "throttled" in codes(assess(held_up))
    rising = tuple(100.0 + 2.0 * r for r in range(10))
    hot = [m.but(processes=[p.but(round_p5_us=rising) for p in m.processes]) for m in calm]
    assert "heating" in codes(assess(hot))


def test_one_disturbed_process_of_the_sentinel_is_said_and_not_called_a_shift():
    calm = batch(TimingNoise(low=0.0005, body=0.01))
    lone = SentinelReading(p5_us=(*[50.0] * 20, *[60.0] * 10, *[50.0] * 20), drift=0.2)
    quality = assess([m.but(sentinel=lone) for m in calm])
    assert codes(quality) == {"disturbed"}
    assert (quality.drift, quality.moved, quality.unstable) == (0.2, 0.0, False)


EVERY_CAUTION = (
    warnings.busy(3.0, 4),
    warnings.clock_fell(0.2),
    warnings.disturbed(0.2),
    warnings.heating(0.1),
    warnings.moved(0.2),
    warnings.noisy(1.3),
    warnings.not_cool("61 C after 300 s"),
    warnings.spread(0.05),
    warnings.swapped(400),
    warnings.throttled(2.0, 3.0),
    warnings.throttled_by_device("heat", 2, 5),
    warnings.too_few(3),
)


def test_no_caution_is_left_out_below():
    made = {name for name in warnings.__all__ if name != "Caution"}
    assert {caution.code.replace("-", "_") for caution in EVERY_CAUTION} == made


@pytest.mark.parametrize("caution", EVERY_CAUTION, ids=lambda caution: caution.code)
def test_every_caution_says_what_to_do(caution):
    assert re.match(r"[A-Z]\w+ ", caution.remedy)  # a sentence, which begins with what to do
    assert len(caution.remedy.split()) >= 3
    assert not caution.message.endswith(".")
    assert not caution.remedy.endswith(".")
    assert str(caution) == f"{caution.message}. {caution.remedy}."


def test_a_bad_batch_has_several_cautions_at_once():
    bad = assess(batch(TimingNoise(low=0.05, body=0.3), processes=3, load_average=9.0), 4)
    assert codes(bad) >= {"spread", "noisy", "busy", "too-few"}


def test_whether_a_pair_gave_the_noise():
    pair = batch(TimingNoise())
    assert (assess(pair).pair, assess(pair[:1]).pair) == (True, False)


def test_nothing_timed_is_not_a_crash():
    assert assess([]).noise == pytest.approx(0.001)
