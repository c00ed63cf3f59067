"""A bench on the fake device: order, twins, failures, noise that decides, and the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Conditions, Delegation, Job, Load, MeasurePlan, OperatorTime, Outcome
from edgekd.errors import ConfigurationError, DeviceBusy, Interrupted, MissingError, UsageError
from edgekd.measure import figures, warnings
from edgekd.measure.benches.bench import BenchReport, measure_for_ranking, run_bench, undecided_pairs
from edgekd.measure.compare import aa_noise, alpha_among, compare
from edgekd.testing.fakes import FakeDevice, Script, TimingNoise, fake_fingerprint

PLAN = MeasurePlan()
LITERT = [Backend(runtime="litert", provider="xnnpack")]


@pytest.fixture
def models(tmp_path):
    paths = [tmp_path / name for name in ("net_f32.tflite", "net_int8.tflite", "other.tflite")]
    for number, path in enumerate(paths):
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes([number]) * (9000 - 3000 * number))
    return paths


class Failing(FakeDevice):
    """A fake device whose runtime dies when its operators are timed."""

    def open(self):
        session = super().open()
        measure = session.measure
        session.measure = lambda *asked: [m.but(operators_detail="crashed: killed by SIGSEGV") for m in measure(*asked)]
        return session


def conv(time_us):
    return (OperatorTime(name="c", kind="CONV_2D", time_us=time_us),)


def test_the_order_the_twins_and_the_table(models):
    scripts = {"net_f32": Script(operators=conv(260.0)), "net_int8": Script(operators=conv(370.0))}
    device = FakeDevice({"net_f32": 272.0, "net_int8": 381.0, "other": 272.1}, outcomes=scripts)
    report = run_bench(models, device, LITERT, 1, MeasurePlan(profile=True))
    assert [row.order for row in report.rows] == [1, 3, 1]
    assert report.exit_code == 0
    assert report.twins[0].result.comparison.ratio == pytest.approx(1.40, abs=0.01)
    lines = report.lines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "1.40x slower" in text
    assert "can't be told apart: net_f32.tflite = other.tflite" in text
    assert "1 CONV_2D +110 us = 100% of the loss" in " ".join(text.split())
    assert "It saves 33% of the file" in " ".join(text.split())
    assert not device.is_open


def test_memory_that_the_device_does_not_report_leaves_its_place_empty(models, monkeypatch):
    monkeypatch.delitem(figures._METRICS, "memory.model")
    lines = run_bench(models, FakeDevice(lambda job: 100.0), LITERT, 1, MeasurePlan()).lines()
    assert any(" - " in line for line in lines)


def test_json_reads_back_and_names_its_schema(models):
    report = run_bench(models, FakeDevice(lambda job: 100.0), LITERT, 2, MeasurePlan())
    written = report.model_dump_json(by_alias=True)
    assert json.loads(written)["schema"] == "edgekd.bench/1"
    assert json.loads(written)["plan"]["threads"] == 2
    assert BenchReport.model_validate_json(written) == report


def test_every_installed_backend_that_loads_the_file(models):
    report = run_bench(models[:1], FakeDevice(lambda job: 100.0), None, 1, MeasurePlan())
    assert [str(row.backend) for row in report.rows] == ["litert/xnnpack", "litert/builtin", "openvino/cpu"]
    assert max(map(len, report.lines())) <= 80


def test_a_failure_is_a_row_with_its_reason(models):
    device = FakeDevice(
        lambda job: 100.0, outcomes={"other": Script(outcome=Outcome.REFUSED, detail="op GRU_9 is not supported")}
    )
    report = run_bench(models, device, LITERT, 1, MeasurePlan())
    assert (report.rows[2].outcome, report.rows[2].order, report.exit_code) == (Outcome.REFUSED, 0, 3)
    assert "op GRU_9 is not supported" in "\n".join(report.lines())


def test_the_first_job_failing_leaves_the_rest(models):
    device = FakeDevice(lambda job: 100.0, outcomes={"net_f32": Outcome.CRASHED})
    report = run_bench(models, device, LITERT, 1, MeasurePlan())
    assert [row.order for row in report.rows] == [0, 1, 1]
    for lines in (report.lines(), report.markdown_lines()):
        text = " ".join(" ".join(lines).split())
        assert "% (no A/A pair: the model that was there twice failed): can't be told apart" in text
        assert "A/A noise" not in text
    whole = run_bench(models, FakeDevice(lambda job: 100.0), LITERT, 1, MeasurePlan())
    assert "A/A noise 0." in "\n".join(whole.lines())
    nothing = run_bench(models[:1], device, LITERT, 1, MeasurePlan())
    assert "noise" not in "\n".join([*nothing.lines(), *nothing.markdown_lines()])


def test_twins_are_compared_as_their_rows_are(models):
    report = run_bench(models, FakeDevice({"net_f32": 100.0, "net_int8": 100.5, "other": 300.0}), LITERT, 1, PLAN)
    plain, small, _ = (row.measurement for row in report.rows)
    (twin,) = report.twins
    assert twin.result.comparison == compare(small, plain, report.quality.noise, alpha_among(3))
    assert twin.result.comparison != compare(small, plain, report.quality.noise)


def test_why_a_report_is_doubtful(models):
    calm = run_bench(models[:1], FakeDevice(lambda job: 100.0), LITERT, 1, PLAN)
    for caution, why in ((warnings.spread(0.2), "the noise is 20.0%"), (warnings.moved(0.1), "the machine changed")):
        report = calm.but(quality=calm.quality.but(unstable=True, noise=0.2, cautions=[caution]))
        assert report.lines()[0].startswith(f"Too noisy to decide everything: {why}")


def test_noise_that_decides_is_the_answer(models):
    device = FakeDevice({"net_f32": 100.0, "net_int8": 104.0}, noise=TimingNoise(low=0.2))
    report = run_bench(models[:2], device, LITERT, 1, MeasurePlan())
    left_out = report.rows[0].measurement.disturbed
    assert report.processes + left_out == 20  # measured up to the limit first
    assert report.exit_code == 6
    assert report.lines()[0].startswith("Too noisy")


def jobs_of(*names):
    artefacts = [Artefact(path=Path(n), format=Format.TFLITE, sha256=f"{n:0>64}", size_bytes=9) for n in names]
    return [Job(artefact=artefact, backend=LITERT[0]) for artefact in artefacts]


def test_two_slower_models_that_are_no_twins_may_share_a_place():
    device = FakeDevice({"a": 100.0, "b": 200.0, "c": 203.0}, noise=TimingNoise(low=0.02))
    known = measure_for_ranking(device.open(), jobs_of("a", "b", "c"), PLAN)
    assert undecided_pairs(known[:-1], aa_noise(known), [(1, 2)]) == [(1, 2)]
    assert undecided_pairs(known[:-1], aa_noise(known)) == []
    assert [len(m.processes) for m in known] == [5] * 4
    again = FakeDevice({"a": 100.0, "b": 200.0, "c": 203.0}, noise=TimingNoise(low=0.02))
    twins = measure_for_ranking(again.open(), jobs_of("a", "b", "c"), PLAN, related=[(1, 2)])
    assert len(twins[1].processes) > 5


def test_the_fastest_is_asked_for_within_a_time_that_is_reported():
    jobs, names = jobs_of("a", "b"), ["a.tflite", "b.tflite"]
    late, steps = iter(range(0, 10_000, 61)), []  # two minutes would be over with the second batch
    device = FakeDevice({"a": 100.0, "b": 103.0}, noise=TimingNoise(low=0.04))
    once = measure_for_ranking(device.open(), jobs, PLAN, names=names, now=lambda: next(late))
    assert len(once[0].processes) <= 5
    device = FakeDevice({"a": 100.0, "b": 103.0}, noise=TimingNoise(low=0.04))
    more = measure_for_ranking(device.open(), jobs, PLAN, lambda what, *_: steps.append(what), names=names)
    assert len(more[0].processes) > 5
    assert "again" not in steps[0]
    assert any(one.endswith("b.tflite can't be told apart yet (at most 120 s)") for one in steps)


def test_a_model_of_an_earlier_report_is_asked_for():
    def measured(earlier, steps):
        device = FakeDevice({"a": 100.0, "b": 200.0, "c": 300.0}, noise=TimingNoise(low=0.02))
        jobs, names = jobs_of("a", "b", "c"), ["a", "b", "c"]
        return measure_for_ranking(
            device.open(), jobs, PLAN, lambda what, *_: steps.append(what), names=names, earlier=earlier
        )

    steps = []
    alone = measured((), steps)[2]
    assert len(alone.processes) == 5
    slower = alone.but(processes=[p.but(p5_us=p.p5_us * 1.02) for p in alone.processes])
    assert len(measured([None, None, slower], steps)[2].processes) > 5
    assert any("c can't be told from the earlier report yet" in one for one in steps)


@pytest.mark.parametrize(("asked", "batches"), [(lambda device: True, 0), (lambda device: device.batches == 1, 1)])
def test_stopping_ends_it_before_the_next_model(asked, batches, models):
    device = FakeDevice(lambda job: 100.0)
    steps = []
    with pytest.raises(Interrupted) as stopped:
        run_bench(
            models,
            device,
            LITERT,
            1,
            MeasurePlan(),
            lambda what, done, total: steps.append(done),
            stop=lambda: asked(device),
        )
    assert (device.batches, len(steps), device.is_open) == (batches, batches, False)
    assert stopped.value.exit_code == 130


def test_why_operators_have_no_times_is_said(models):
    report = run_bench(models, Failing(lambda job: 100.0), LITERT, 1, MeasurePlan(profile=True))
    text = " ".join("\n".join(report.lines()).split())
    assert "no operator times of net_f32.tflite on litert/xnnpack: crashed: killed by SIGSEGV" in text
    assert "edgekd bench --profile" not in text  # that was asked for already
    assert max(map(len, report.lines())) <= 80
    assert "no operator times" not in "\n".join(
        run_bench(models, FakeDevice(lambda job: 100.0), LITERT, 1, PLAN).lines()
    )


def test_temperature_and_clock_are_reported_where_they_are_known(models):
    report = run_bench(models[:1], FakeDevice(lambda job: 100.0), LITERT, 1, PLAN)
    assert report.detail_lines() == ["net_f32.tflite on litert/xnnpack: neither temperature nor clock is reported here"]
    (row,) = report.rows
    first, *middle, last = row.measurement.processes
    processes = (
        first.but(before=Conditions(temperature_c=41.0, clock_mhz=2400.0)),
        *middle,
        last.but(after=Conditions(temperature_c=67.0)),
    )
    hot = report.but(rows=[row.but(measurement=row.measurement.but(processes=processes))])
    (line,) = hot.detail_lines()
    assert line.endswith(": 41 C -> 67 C, 2400 MHz -> unknown")
    written = json.loads(hot.model_dump_json())["rows"][0]["measurement"]["processes"]
    assert written[0]["before"].items() >= {"temperature_c": 41.0, "clock_mhz": 2400.0}.items()
    assert written[0]["after"] is None


def test_what_is_missing_is_said(models, tmp_path):
    device = FakeDevice(lambda job: 100.0)
    with pytest.raises(ConfigurationError, match="did you mean"):
        run_bench([tmp_path / "net_f23.tflite"], device, None, 1, MeasurePlan())
    with pytest.raises(ConfigurationError, match="use one of litert/xnnpack"):
        run_bench(models, device, [Backend(runtime="onnxruntime", provider="cpu")], 1, MeasurePlan())
    bare = FakeDevice(lambda job: 100.0, fingerprint=fake_fingerprint(runtimes={}, providers={}))
    with pytest.raises(MissingError, match="no runtime"):
        run_bench(models, bare, None, 1, MeasurePlan())
    with pytest.raises(MissingError, match="litert/xnnpack"):
        run_bench(models, bare, LITERT, 1, MeasurePlan())
    device.open()
    with pytest.raises(DeviceBusy):
        run_bench(models, device, LITERT, 1, MeasurePlan())


def test_every_number_of_threads_is_a_row_of_the_batch(models):
    device = FakeDevice(lambda job: 100.0 / (job.threads or 1))
    report = run_bench(models[:2], device, LITERT, (1, 2, 2), PLAN.but(load=Load(busy=1)))
    assert device.batches == 1
    assert [(row.model, row.threads, row.order) for row in report.rows] == [
        ("net_f32.tflite", 1, 3), ("net_int8.tflite", 1, 3), ("net_f32.tflite", 2, 1), ("net_int8.tflite", 2, 1),
    ]  # fmt: skip
    assert [twin.threads for twin in report.twins] == [1, 2]
    text = " ".join(" ".join(report.lines()).split())
    assert "closed loop, 1 core busy . 1 and 2 threads" in text
    assert "litert/xnnpack, 1 thread net_f32.tflite" in text
    assert "net_int8.tflite against net_f32.tflite on litert/xnnpack, 2 threads: not faster" in text
    assert "beside work that keeps 1 core busy" in report.rows[0].figures[0].method
    assert BenchReport.model_validate_json(report.model_dump_json(by_alias=True)) == report
    assert any("litert/xnnpack, 2 threads" in line for line in report.markdown_lines())


def test_what_a_delegate_left_out_is_said(models):
    split = Delegation(total=9, delegated=7, partitions=2, left_out=("GATHER", "TOPK_V2"))
    whole = Delegation(total=9, delegated=9, partitions=1)
    scripts = {"net_f32": Script(delegation=split), "net_int8": Script(delegation=whole)}
    lines = run_bench(models, FakeDevice(lambda job: 100.0, outcomes=scripts), LITERT, 1, PLAN).lines()
    (delegated,) = [line for line in lines if "delegated" in line]
    assert delegated.startswith("7 of 9 operators of net_f32.tflite on litert/xnnpack are delegated, in 2 parts")
    assert "left out: GATHER, TOPK_V2" in " ".join(lines).replace("  ", " ")


def test_a_delegate_that_took_nothing_is_said(models):
    none = Delegation(total=9, delegated=0, partitions=0, left_out=("GELU",))
    device = FakeDevice(lambda job: 100.0, outcomes=lambda job: Script(delegation=none))
    every = [*LITERT, Backend(runtime="litert", provider="builtin")]
    text = " ".join(" ".join(run_bench(models[:1], device, every, 1, PLAN).lines()).split())
    assert "0 of 9 operators of net_f32.tflite on litert/xnnpack are delegated, in 0 parts; left out: GELU" in text
    assert "litert/builtin are delegated" not in text  # there is no delegate to take any


def test_what_cannot_be_asked_for(models):
    device = FakeDevice(lambda job: 100.0)
    with pytest.raises(UsageError, match="5 busy cores: fake-device has 4"):
        run_bench(models, device, LITERT, 1, PLAN.but(load=Load(busy=5)))
    assert run_bench(models, device, LITERT, None, PLAN.but(threads=3)).threads == (3,)
    device.batches = 0
    for threads in ((), (0,), 0):
        with pytest.raises(UsageError, match="one number at least"):
            run_bench(models, device, LITERT, threads, PLAN)
    assert (device.batches, device.is_open) == (0, False)


def test_others_work_is_reported_of_any_device(models):
    busy = run_bench(models, FakeDevice(lambda job: 100.0, load_average=3.0), LITERT, 1, PLAN)
    text = " ".join(" ".join(busy.lines()).split())
    assert "the machine was busy when this began: load average 3.0 on 4 cores" in text


def test_others_work_is_held_against_all_cores_where_the_work_is_bound_to_some(models):
    bound = FakeDevice(lambda job: 100.0, load_average=3.0, machine_cores=64)
    assert "load average" not in " ".join(run_bench(models, bound, LITERT, 1, PLAN).lines())


def test_a_table_is_as_wide_as_the_terminal(models, monkeypatch):
    long = [models[0].with_name(f"{'network-' * 9}{end}.tflite") for end in ("float32", "int8")]
    for path in long:
        path.write_bytes(models[0].read_bytes())
    report = run_bench(long, FakeDevice(lambda job: 100.0), LITERT, 1, PLAN)
    assert max(map(len, report.lines())) <= 80
    assert not any(path.name in line for path in long for line in report.lines()[3:6])
    monkeypatch.setenv("COLUMNS", "160")
    assert all(any(path.name in line for line in report.lines()) for path in long)
