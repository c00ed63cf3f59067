"""What is known is not measured again, what changed is, and nothing finished is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Backend
from edgekd.errors import Interrupted, MissingError
from edgekd.events import SilentEvents
from edgekd.ir import backends
from edgekd.ir.numerics import Precision
from edgekd.profiling import run as profiling
from edgekd.profiling.run import expected_s, profile_device
from edgekd.testing.fakes.clock import FakeClock
from edgekd.testing.fakes.device import FakeDevice, fake_fingerprint
from tests.profiling.conftest import behaviour, deployment, memory

LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")


class Paper:
    """Takes the place of what measures; counts what it was asked for."""

    asked: list[str] = []
    stop_after: int | None = None
    clock = FakeClock()
    takes_s: float = 0.0  # a step; a section has two

    def __init__(self, *, quick, threads, **given):
        del given
        self.quick, self.threads = quick, threads

    def _note(self, name, report_step):
        if Paper.stop_after is not None and len(Paper.asked) >= Paper.stop_after:
            raise Interrupted("stopped", "again")
        for step in range(2):
            report_step("measuring", step, 2)
            Paper.clock.advance(Paper.takes_s)
        Paper.asked.append(name)

    def deployment(self, backend, precision, report_step):
        self._note(f"{backend} {precision.value}", report_step)
        return deployment(precision, backend=backend, quick=self.quick, threads=self.threads)

    def memory(self, report_step):
        self._note("memory", report_step)
        return memory().but(quick=self.quick)

    def behaviour(self, backend, report_step):
        self._note("behaviour", report_step)
        return behaviour().but(backend=backend, quick=self.quick)


@pytest.fixture
def profiled(tmp_path, monkeypatch):
    """Profile a device on paper; returns the report and what was measured for it."""
    monkeypatch.setattr(profiling, "Profiler", Paper)

    def run(quick=False, again=False, backends=(), fingerprint=None, stop_after=None, takes_s=0.0, **changes):
        Paper.asked, Paper.stop_after, Paper.clock, Paper.takes_s = [], stop_after, FakeClock(), takes_s
        device = FakeDevice({}, fingerprint=fingerprint or there())
        report = profile_device(device, backends, quick, again, SilentEvents(), tmp_path, now=Paper.clock, **changes)
        return report, Paper.asked

    return run


def there(**changes):
    providers = {"litert": ("xnnpack", "builtin"), "onnxruntime": ("cpu",)}
    return fake_fingerprint().but(providers=providers, runtimes=dict.fromkeys(providers, "1.0"), **changes)


def test_a_second_call_measures_nothing_again(profiled):
    report, asked = profiled()
    assert asked == [
        "memory",
        *(f"{backend} {precision}" for backend in (LITERT, ORT) for precision in ("float32", "float16", "int8")),
        "behaviour",
    ]
    again, asked = profiled()
    assert asked == []
    assert len(again.reused) == 8
    assert again.deployments == report.deployments


@pytest.mark.slow
def test_another_state_of_the_device_is_measured_anew(profiled):
    profiled(quick=True)
    for changed in (there(governor="powersave"), there(os="another"), there(limits="2 cores by affinity")):
        report, asked = profiled(quick=True, fingerprint=changed)
        assert len(asked) == 4
        assert report.reused == ()


@pytest.mark.slow
def test_another_packages_runtime_is_measured_beside_what_is_known(profiled, monkeypatch):
    profiled()
    with_tiny = {**backends.BACKENDS, "tiny/cpu": backends.BACKENDS[str(LITERT)]}
    monkeypatch.setattr(backends, "_loaded", lambda: with_tiny)
    plain = there()
    for version in ("1.0", "1.1"):
        beside = plain.but(
            runtimes={**plain.runtimes, "tiny": version}, providers={**plain.providers, "tiny": ("cpu",)}
        )
        report, asked = profiled(fingerprint=beside)
        assert asked == [f"tiny/cpu {precision}" for precision in ("float32", "float16", "int8")]
        assert len(report.reused) == 8
        assert profiled(fingerprint=beside)[1] == []


def test_a_whole_profile_takes_the_place_of_a_quick_one_and_not_the_other_way_round(profiled):
    profiled(quick=True)
    _, asked = profiled()
    assert len(asked) == 8
    report, asked = profiled(quick=True)
    assert asked == []
    assert not any(one.quick for one in report.deployments)


def test_stopped_in_the_middle_it_goes_on_there(profiled):
    with pytest.raises(Interrupted):
        profiled(stop_after=3)
    _, asked = profiled()
    assert asked == [
        "litert/xnnpack int8",
        *(f"onnxruntime/cpu {one}" for one in ("float32", "float16", "int8")),
        "behaviour",
    ]


def test_again_measures_everything(profiled):
    profiled(quick=True)
    assert len(profiled(quick=True, again=True)[1]) == 4


@pytest.mark.slow
def test_again_is_gone_on_with_where_it_was_stopped(profiled, monkeypatch):
    profiled()
    for _ in range(2):
        with pytest.raises(Interrupted):
            profiled(again=True, stop_after=3)
    report, asked = profiled(again=True)
    assert len(asked) == 8 - 2 * 3
    assert len(report.reused) == 6
    assert len(profiled(again=True)[1]) == 8
    with pytest.raises(Interrupted):
        profiled(again=True, stop_after=3)
    assert profiled()[1] == []
    monkeypatch.setattr(profiling.time, "time", lambda now=profiling.time.time: now() + 25 * 3600)
    assert len(profiled(again=True)[1]) == 8


@pytest.mark.slow
def test_a_quick_look_again_has_time_left_for_what_was_left_out(profiled):
    profiled(quick=True)
    seen = []
    for _ in range(4):
        report, asked = profiled(quick=True, again=True, takes_s=14.0)
        seen += asked
        if not report.left_out:
            break
    assert sorted(seen) == ["behaviour", "litert/xnnpack float32", "litert/xnnpack int8", "memory"]


def test_where_one_section_takes_more_than_the_time_each_call_finishes_one(profiled):
    seen = []
    for _ in range(4):
        report, asked = profiled(quick=True, takes_s=60.0)
        assert len(asked) == 1
        seen += asked
    assert report.left_out == ()
    assert sorted(seen) == ["behaviour", "litert/xnnpack float32", "litert/xnnpack int8", "memory"]


def test_a_quick_look_again_leaves_whole_sections_as_they_are(profiled):
    profiled()
    report, asked = profiled(quick=True, again=True)
    assert asked == []
    assert not any(one.quick for one in report.deployments)


def test_behaviour_on_another_backend_is_another_section(profiled):
    profiled(quick=True)
    report, asked = profiled(quick=True, backends=(ORT,))
    assert asked == ["onnxruntime/cpu float32", "onnxruntime/cpu int8", "behaviour"]
    assert report.behaviour.backend == ORT


def test_a_section_that_reported_nothing_is_tried_again(profiled, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            Paper, "deployment", lambda self, b, p, report_step: deployment(p, backend=b, quick=True, refused="it hung")
        )
        report, _ = profiled(quick=True)
        assert {one.refused for one in report.deployments} == {"it hung"}
    _, asked = profiled(quick=True)
    assert asked == ["litert/xnnpack float32", "litert/xnnpack int8"]


def test_a_backend_that_is_not_there_is_named(profiled):
    with pytest.raises(MissingError, match="openvino/cpu") as raised:
        profiled(backends=(Backend.model_validate("openvino/cpu"),))
    assert "litert/xnnpack" in str(raised.value)


def test_the_page_lies_beside_the_sections(profiled):
    report, _ = profiled(quick=True)
    assert (Path(report.folder) / "report.html").is_file()


def test_a_quick_look_is_expected_within_fifty_seconds():
    sections = (
        "memory",
        "deployment-litert-xnnpack-float32",
        "deployment-litert-xnnpack-int8",
        "behaviour-litert-xnnpack",
    )
    assert expected_s(sections, quick=True) <= 50
    assert expected_s(("memory",), quick=False) < 10


@pytest.mark.parametrize(
    ("takes_s", "done", "left"),
    [
        (5.0, 4, 0),
        (10.0, 2, 2),  # 20 s each, where 3 and 12 were expected: twice as long would not fit a third time
        (26.0, 1, 3),
        (61.0, 1, 3),  # the first takes its two steps, whatever the clock says
    ],
)
def test_a_quick_look_ends_within_its_minute_and_says_what_it_left_out(profiled, takes_s, done, left):
    report, asked = profiled(quick=True, takes_s=takes_s)
    assert (len(asked), len(report.left_out)) == (done, left)
    assert Paper.clock() <= max(62, 2 * takes_s)
    said = " ".join(" ".join(report.lines()).split())
    assert ("no time within a minute for" in said) is bool(left)
    assert ("too few networks for `edgekd predict` on" in said) is bool(report.deployments)
    again, more = profiled(quick=True)
    assert len(more) == left
    assert again.left_out == ()


def test_a_whole_profile_takes_its_time(profiled):
    report, asked = profiled(takes_s=500.0)
    assert (len(asked), report.left_out) == (8, ())
    assert not any("too few networks" in line for line in report.lines())


@pytest.mark.slow
def test_another_number_of_threads_is_another_section(profiled):
    profiled(quick=True)
    report, asked = profiled(quick=True, threads=2)
    assert asked == ["litert/xnnpack float32", "litert/xnnpack int8"]
    assert (report.threads, [one.threads for one in report.deployments]) == (2, [2, 2])
    assert profiled(quick=True, threads=2)[1] == profiled(quick=True)[1] == []
    text = (Path(report.folder) / "report.html").read_text()
    assert "int8, 2 threads" in text


def test_precisions_are_those_asked_for(profiled):
    _, asked = profiled(backends=(LITERT,), precisions=(Precision.DYNAMIC_INT8, Precision.DYNAMIC_INT8))
    assert asked == ["memory", "litert/xnnpack dynamic-int8", "behaviour"]
