"""What is measured for each section, on a device by script: networks in two rounds, threads, and work without pause."""

from __future__ import annotations

import pytest

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Conditions, OperatorTime, Outcome
from edgekd.ir.kernels import Kernel
from edgekd.ir.numerics import Precision
from edgekd.measure.contention import DriftBaseline
from edgekd.measure.tables import kept_tables, tables_folder
from edgekd.profiling import sections
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.probes import candidates, width_sweep
from edgekd.profiling.sections import Profiler
from edgekd.testing.fakes.device import FakeDevice, Script, TimingNoise, fake_fingerprint
from tests.measure.prediction.device_on_paper import latency_us

ORT = Backend.model_validate("onnxruntime/cpu")
CALM = TimingNoise(low=0.0, body=0.0, tail=0.0)
DEPTHWISE = (Kernel("depthwise", 64, 64, 32, 32, 9, 1, 589_824, 65_536, 65_536, 576),) * 4


class SmallBuilder:
    """Files that hold their probe's name, and what a device takes for each."""

    def __init__(self, folder, us=latency_us, refused=()):
        self.folder, self.us, self.refused = folder, us, refused
        self.kernels, self.made = {}, []

    def __call__(self, probe, backend, precision):
        if probe.name in self.refused:
            return None, "no kernel for it here"
        path = self.folder / f"{probe.name}.onnx"
        path.write_text(probe.name)
        artefact = Artefact.of(path)
        self.kernels[artefact.sha256] = DEPTHWISE if isinstance(probe, Depthwise) else probe.kernels()
        self.made.append(probe)
        return artefact, ""

    def kernels_of(self, artefact):
        return self.kernels[artefact.sha256]

    def latency_us(self, job):
        return 100.0 if job.backend.runtime == "null" else self.us(self.kernels[job.artefact.sha256])


class Watched:
    """A session that remembers under which plans it measured, on a machine that gets warmer and slower."""

    def __init__(self, session):
        self.session, self.asked = session, []

    def measure(self, jobs, plan, progress=None):
        self.asked.append((len(jobs), plan))
        return [
            measurement.but(
                processes=tuple(self._with_conditions(at, one) for at, one in enumerate(measurement.processes))
            )
            for measurement in self.session.measure(jobs, plan, progress)
        ]

    def _with_conditions(self, at, process):
        moments = [Conditions(temperature_c=40.0 + 2 * at + late, clock_mhz=2400.0 - 100 * at) for late in (0, 1)]
        return process.but(before=moments[0], after=moments[1])


@pytest.fixture
def few(monkeypatch):
    """Fewer networks, out of fewer: choosing among all of them takes its time."""
    monkeypatch.setattr(sections, "candidates", lambda: candidates()[:12])
    monkeypatch.setattr(sections, "NETWORKS", 4)


@pytest.fixture
def profiler(tmp_path, monkeypatch):
    """Returns a maker of profilers, whose tables lie in a folder of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(sections, "candidates", lambda: (*candidates()[:32], *candidates()[-16:]))

    def make(us=latency_us, refused=(), noise=CALM, outcomes=None, fingerprint=None, **changes):
        builder = SmallBuilder(tmp_path, us, refused)
        fingerprint = fingerprint or fake_fingerprint()
        device = FakeDevice(builder.latency_us, noise=noise, outcomes=outcomes, fingerprint=fingerprint)
        whole = {
            "device": "board",
            "session": Watched(device.open()),
            "fingerprint": fingerprint,
            "make": builder,
            "depthwise": Depthwise(tmp_path / "depthwise"),
            "quick": False,
            "drift_baseline": DriftBaseline(),
            "stop": lambda: None,
            "kernels_of": builder.kernels_of,
        }
        return Profiler(**{**whole, **changes})

    return make


def silent(what, step, steps):
    del what, step, steps


def plans(profiler):
    return [plan for _, plan in profiler.session.asked]


@pytest.mark.slow
def test_an_deployment_has_its_stairs_and_networks_and_fills_the_table(profiler):
    found = profiler().deployment(ORT, Precision.FLOAT32, silent)
    assert (found.refused, len(found.width_sweep), len(found.table)) == ("", 16, 36)
    assert len({one.name for one in found.table}) == 36
    assert {one.name for one in found.table} <= {probe.name for probe in candidates()}
    assert {one.name.split()[0] for one in found.table} == {"network", "mobile"}
    (kept,) = kept_tables()
    assert (kept.device, kept.backend, kept.precision, kept.threads) == ("board", ORT, Precision.FLOAT32, 1)
    assert len(kept.rows) == 2 + 16 + 36
    assert [row.p5_us for row in kept.rows[2:18]] == [one.p5_us.value for one in found.width_sweep]


@pytest.mark.slow
def test_the_second_half_of_the_networks_are_chosen_by_what_the_first_measured(profiler):
    def strange(kernels):
        """Another device: deep layers at small pictures are dear."""
        return 3.0 + sum(1e-5 * k.macs + (40.0 if k.height < 10 else 0.1) for k in kernels)

    one, other = (profiler(us).deployment(ORT, Precision.FLOAT32, silent).table for us in (latency_us, strange))
    names = [[probed.name for probed in table] for table in (one, other)]
    assert names[0][:18] == names[1][:18]
    assert set(names[0][18:]) != set(names[1][18:])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("threads", [1, 3])
def test_deployments_are_measured_and_kept_with_the_threads_asked_for(profiler, threads):
    several = profiler(threads=threads)
    found = several.deployment(ORT, Precision.INT8, silent)
    assert {plan.threads for plan in plans(several)} == {threads}
    assert found.threads == kept_tables()[0].threads == threads


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_operators_are_timed_by_the_runtimes_own_profile(profiler):
    def script(job):
        depthwise = job.artefact.path.stem == "depthwise"
        counts = {"Conv": 4} if depthwise else {"FusedConv": 9, "Gemm": 1}
        times = [
            OperatorTime(name=f"{kind}{at}", kind=kind, time_us=5.0) for kind in counts for at in range(counts[kind])
        ]
        return Script(operators=tuple(times))

    asked = profiler(outcomes=script)
    found = asked.deployment(ORT, Precision.FLOAT32, silent)
    assert [plan.profile for plan in plans(asked)].count(True) == 2
    assert found.operators_detail == ""
    assert [(one.network, one.kind, one.count, one.time_us.value) for one in found.operators] == [
        ("resnet-8", "Conv", 9, 45.0),
        ("resnet-8", "FullyConnected", 1, 5.0),
        ("depthwise", "DepthwiseConv", 4, 20.0),
    ]
    assert found.operators[2].macs_per_s.value == pytest.approx(4 * 589_824 / 20e-6)
    assert found.operators[0].time_us.kind.value == "measured"


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_where_some_operators_are_not_reported_there_is_no_rate_of_them(profiler):
    times = tuple(OperatorTime(name=f"Conv{at}", kind="Conv", time_us=5.0) for at in range(8))  # of nine
    found = profiler(outcomes=lambda job: Script(operators=times)).deployment(ORT, Precision.FLOAT32, silent)
    assert [(one.count, one.macs_per_s) for one in found.operators[:1]] == [(8, None)]


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_where_a_runtime_reports_no_operators_it_is_said(profiler):
    found = profiler(refused=("depthwise",)).deployment(ORT, Precision.INT8, silent)
    assert found.operators == ()
    assert found.operators_detail == ("resnet-8: this backend doesn't tell them; depthwise: no kernel for it here")
    assert found.refused == ""


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("missing", ["overhead", "peak", "width 8"])
def test_a_network_that_can_not_be_timed_takes_nothing_from_the_others(profiler, missing):
    def outcomes(job):
        return Outcome.OUT_OF_MEMORY if job.artefact.path.stem == missing else Outcome.OK

    found = profiler(outcomes=outcomes).deployment(ORT, Precision.FLOAT32, silent)
    assert found.refused == ""
    assert len(found.missed) == 1
    assert found.missed[0].startswith(f"{missing}: out-of-memory")
    assert found.timed == len(kept_tables()[0].rows) == 2 + 16 + 4 - 1
    assert (found.overhead is None) is (missing == "overhead")
    assert len(found.width_sweep) == (15 if missing == "width 8" else 16)


def test_where_most_can_not_be_timed_what_could_is_kept_and_nothing_concluded(profiler):
    def outcomes(job):
        return Outcome.HUNG if job.artefact.path.stem.startswith("width") else Outcome.OK

    found = profiler(outcomes=outcomes).deployment(ORT, Precision.FLOAT32, silent)
    assert found.refused.startswith("hung")
    assert (found.peak, found.width_sweep, found.table) == (None, (), ())
    assert len(kept_tables()[0].rows) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_torn_table_costs_nothing_that_was_measured(profiler):
    profiler().deployment(ORT, Precision.FLOAT32, silent)
    (path,) = tables_folder().glob("*.json")
    path.write_text("{")
    found = profiler().deployment(ORT, Precision.FLOAT32, silent)
    assert (found.refused, len(found.width_sweep)) == ("", 16)
    assert path.name in found.not_kept


def test_what_can_not_be_made_is_reported_and_nothing_kept(profiler):
    found = profiler(refused=(width_sweep(False)[3].name,)).deployment(ORT, Precision.INT8, silent)
    assert (found.refused, found.width_sweep) == ("no kernel for it here", ())
    assert kept_tables() == ()


def test_a_quick_look_measures_each_batch_once_however_busy_the_machine_is(profiler):
    busy = TimingNoise(low=0.5)
    quick, whole = profiler(noise=busy, quick=True), profiler(noise=busy)
    quick.memory(silent)
    assert len(quick.session.asked) == 1
    whole.memory(silent)
    assert len(whole.session.asked) > 1
    found = quick.deployment(ORT, Precision.FLOAT32, silent)
    assert [count for count, _ in quick.session.asked[1:]] == [2 + len(width_sweep(True))]
    assert (found.table, found.operators, found.operators_detail) == ((), (), "")
    quick.behaviour(ORT, silent)
    assert len(quick.session.asked) == 2 + 2 + 1 + 2 + 1  # two numbers of threads, without pause, two rates, noise


def test_without_pause_all_cores_work_and_each_stretch_reports_heat_and_clock(profiler):
    long = profiler()
    found = long.behaviour(ORT, silent)
    assert [each.threads for each in found.threads] == [1, 2, 4]
    (plan,) = [plan for plan in plans(long) if plan.load.busy]
    assert found.busy == plan.load.busy == 3
    assert (plan.processes, plan.rounds, len(found.sustained)) == (12, 10, 120)
    assert [each.at_s for each in found.sustained] == sorted(each.at_s for each in found.sustained)
    assert found.sustained[-1].at_s > 60.0
    reported = [(at, each.temperature_c, each.clock_mhz) for at, each in enumerate(found.sustained) if each.clock_mhz]
    assert reported[:3] == [(0, 40.0, 2400.0), (9, 41.0, 2400.0), (10, 42.0, 2300.0)]
    assert len(reported) == 24


@pytest.mark.parametrize(
    ("fingerprint", "busy"),
    [(fake_fingerprint().but(cooling="below 45 C"), 3), (fake_fingerprint().but(cooling="below 45 C", cores=1), 0)],
)
def test_a_device_that_waits_until_it_is_cool_is_not_let_cool_in_the_middle(profiler, fingerprint, busy):
    long = profiler(fingerprint=fingerprint)
    found = long.behaviour(ORT, silent)
    (plan,) = [plan for plan in plans(long) if plan.round_ms == 500.0]
    assert (plan.processes, plan.rounds, plan.load.busy) == (1, 120, busy)
    assert len(found.sustained) == 120


def test_a_network_that_can_not_be_made_has_no_behaviour(profiler):
    found = profiler(refused=("resnet-8",)).behaviour(ORT, silent)
    assert found.threads == ()
    assert "no kernel for it here" in found.probe


def test_memory_is_of_working_sets_from_a_cache_to_memory(profiler):
    sizes = [stream.working_bytes for stream in profiler().memory(silent).streams]
    assert sizes == [256 << 10, 2 << 20, 16 << 20, 128 << 20]
