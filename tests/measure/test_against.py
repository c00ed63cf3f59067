"""A bench against an earlier one, on the fake device: a real change, a machine that changed, nothing, and misuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Job, Load, Measurement, MeasurePlan, Outcome
from edgekd.errors import ConfigurationError
from edgekd.measure.benches.bench import BenchReport, run_bench
from edgekd.measure.benches.text import bench_markdown
from edgekd.testing.fakes import FakeDevice, fake_fingerprint

PLAN = MeasurePlan()
LITERT = [Backend(runtime="litert", provider="xnnpack")]
BOTH = [*LITERT, Backend(runtime="litert", provider="builtin")]


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.tflite", "b.tflite")]
    for number, path in enumerate(paths):
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes([number]) * 900)
    return paths


class Slowed(FakeDevice):
    """The whole machine, its sentinel included, at another speed."""

    def __init__(self, latencies: dict[str, float], factor: float, **options: object) -> None:
        super().__init__({name: factor * us for name, us in latencies.items()}, **options)  # type: ignore[arg-type]
        self.factor = factor

    def open(self):  # type: ignore[no-untyped-def]
        session = super().open()
        measure = session.measure

        def slowed(*asked: object) -> list[Measurement]:
            return [
                m.but(sentinel=m.sentinel.but(p5_us=tuple(self.factor * us for us in m.sentinel.p5_us)))
                if m.sentinel
                else m
                for m in measure(*asked)
            ]

        session.measure = slowed
        return session


def bench(
    models: list[Path], device: FakeDevice, previous: Path | None = None, plan: MeasurePlan = PLAN
) -> BenchReport:
    return run_bench(models, device, LITERT, 1, plan, previous=previous)


@pytest.fixture
def before(models: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "before.json"
    report = bench(models, FakeDevice({"a": 100.0, "b": 200.0}, noise=0.003))
    path.write_text(report.model_dump_json(by_alias=True))
    return path


def words(report: BenchReport) -> dict[str, str]:
    assert report.against is not None
    return {change.model: change.word for change in report.against.changes}


def said(report: BenchReport) -> str:
    lines = report.lines()
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())


def test_a_real_regression_ends_with_exit_code_1(models: list[Path], before: Path) -> None:
    report = bench(models, FakeDevice({"a": 110.0, "b": 200.0}, noise=0.003, seed=1), before)
    assert words(report) == {"a.tflite": "slower", "b.tflite": "alike"}
    assert report.exit_code == 1
    assert "a.tflite on litert/xnnpack is 1.10x slower than it was" in said(report)
    assert "1 of 2 can't be told apart from before" in said(report)


def test_faster_is_no_regression(models: list[Path], before: Path) -> None:
    report = bench(models, FakeDevice({"a": 80.0, "b": 200.0}, noise=0.003, seed=1), before)
    assert words(report)["a.tflite"] == "faster"
    assert report.exit_code == 0


def test_a_machine_that_changed_is_no_regression(models: list[Path], before: Path) -> None:
    report = bench(models, Slowed({"a": 100.0, "b": 200.0}, 1.2, noise=0.003, seed=1), before)
    assert words(report) == {"a.tflite": "unsure", "b.tflite": "unsure"}
    assert report.exit_code == 0
    assert "the machine has changed" in said(report)


def test_a_model_that_got_slower_on_a_machine_that_did_too(models: list[Path], before: Path) -> None:
    report = bench(models, Slowed({"a": 130.0, "b": 200.0}, 1.1, noise=0.003, seed=1), before)
    assert words(report) == {"a.tflite": "slower", "b.tflite": "unsure"}
    assert report.exit_code == 1


def test_without_a_sentinel_nobody_can_tell_the_model_from_the_machine(models: list[Path], before: Path) -> None:
    plan = PLAN.but(sentinel=False)
    report = bench(models, FakeDevice({"a": 120.0, "b": 200.0}, noise=0.003, seed=1), before, plan)
    assert words(report) == {"a.tflite": "unsure", "b.tflite": "alike"}
    assert report.exit_code == 0
    assert "takes 1.20 of its time by the clock, but without a sentinel" in said(report)


def test_an_unstable_batch_claims_nothing(models: list[Path], before: Path) -> None:
    then = BenchReport.model_validate_json(before.read_bytes())
    doubtful = then.but(quality=then.quality.but(unstable=True))
    before.write_text(doubtful.model_dump_json(by_alias=True))
    report = bench(models, FakeDevice({"a": 120.0, "b": 200.0}, noise=0.003, seed=1), before)
    assert words(report) == {"a.tflite": "unsure", "b.tflite": "alike"}
    assert "the earlier batch was unstable, so nothing is claimed" in said(report)


def test_files_of_one_name_are_held_against_their_own(tmp_path: Path) -> None:
    models = [tmp_path / folder / "net.tflite" for folder in ("old", "new")]
    for number, path in enumerate(models):
        path.parent.mkdir()
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes([number]) * 900)
    sizes = {str(path): us for path, us in zip(models, (100.0, 200.0), strict=True)}
    device = FakeDevice(lambda job: sizes[str(job.artefact.path)], noise=0.003)
    previous = tmp_path / "before.json"
    previous.write_text(bench(models, device).model_dump_json(by_alias=True))
    sizes[str(models[0])] = 130.0
    report = bench(models, FakeDevice(lambda job: sizes[str(job.artefact.path)], noise=0.003, seed=1), previous)
    assert words(report) == {"old/net.tflite": "slower", "new/net.tflite": "alike"}
    assert report.exit_code == 1


def of_one_name(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name / "net.tflite" for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes([number]) * 900)
    return paths


def test_a_name_that_fits_several_files_now_is_no_comparison(tmp_path: Path) -> None:
    models, previous = of_one_name(tmp_path, "a", "b"), tmp_path / "then.json"
    previous.write_text(bench(models[:1], FakeDevice(lambda job: 100.0)).model_dump_json(by_alias=True))
    slow = FakeDevice(lambda job: 200.0)
    with pytest.raises(ConfigurationError, match=r"one net.tflite, which may be any of .*/a/net.tflite, .*/b/net.tf"):
        bench(models, slow, previous)
    assert slow.batches == 0


def test_a_file_is_the_one_it_was_by_the_end_of_its_path(tmp_path: Path) -> None:
    models, previous = of_one_name(tmp_path, "a", "b"), tmp_path / "then.json"
    previous.write_text(bench(models, FakeDevice(lambda job: 100.0)).model_dump_json(by_alias=True))
    report = bench(models[:1], FakeDevice(lambda job: 200.0), previous)
    assert (words(report), report.exit_code) == ({"net.tflite": "slower"}, 1)
    assert report.against is not None
    assert (report.against.gone, report.against.new) == (("b/net.tflite on litert/xnnpack",), ())
    elsewhere = of_one_name(tmp_path / "copy", "a", "c")
    now = bench(elsewhere, FakeDevice(lambda job: 200.0), previous).against
    assert now is not None
    assert [change.model for change in now.changes] == ["a/net.tflite"]
    assert now.new == ("c/net.tflite on litert/xnnpack",)


def test_what_has_nothing_to_compare_is_refused_before_it_is_measured(
    models: list[Path], before: Path, tmp_path: Path
) -> None:
    (other,) = of_one_name(tmp_path, "other")
    device = FakeDevice(lambda job: 100.0)
    with pytest.raises(ConfigurationError, match=r"to compare with: it has times of a\.tflite on litert"):
        bench([other], device, before)
    with pytest.raises(ConfigurationError, match="nothing to compare with"):
        run_bench(models, device, BOTH[1:], 1, PLAN, previous=before)
    assert (device.batches, device.is_open) == (0, False)


def test_a_model_that_ran_then_and_fails_now_is_worse(models: list[Path], tmp_path: Path) -> None:
    def report(fails: Callable[[Job], bool], previous: Path | None = None) -> BenchReport:
        device = FakeDevice(lambda job: 100.0, outcomes=lambda job: Outcome.CRASHED if fails(job) else None)
        return run_bench(models, device, BOTH, 1, PLAN, previous=previous)

    def one(job: Job) -> bool:
        return (job.artefact.path.name, job.backend.provider) == ("b.tflite", "builtin")

    path = tmp_path / "then.json"
    path.write_text(report(lambda job: False).model_dump_json(by_alias=True))
    now = report(one, path)
    assert now.against is not None
    assert now.against.broken == ("b.tflite on litert/builtin (crashed)",)
    assert (now.against.gone, len(now.against.changes), now.exit_code) == ((), 3, 1)
    assert "against then.json: no longer runs: b.tflite on litert/builtin (crashed)" in said(now)
    assert report(lambda job: job.artefact.path.name == "b.tflite", path).exit_code == 3
    path.write_text(report(one).model_dump_json(by_alias=True))
    still, mended = report(one, path).against, report(lambda job: False, path).against
    assert still is not None
    assert mended is not None
    assert (still.broken, still.worse, mended.worse) == ((), False, False)
    assert mended.new == ("b.tflite on litert/builtin",)


def test_an_earlier_report_in_which_names_are_shared_is_refused(models: list[Path], before: Path) -> None:
    then = BenchReport.model_validate_json(before.read_bytes())
    before.write_text(then.but(rows=(then.rows[0], then.rows[0])).model_dump_json(by_alias=True))
    device = FakeDevice(lambda job: 100.0)
    with pytest.raises(ConfigurationError, match="more than once"):
        bench(models, device, before)
    assert device.batches == 0


@pytest.mark.slow
def test_the_same_again_is_never_a_regression(models: list[Path], before: Path) -> None:
    for seed in range(1, 31):
        report = bench(models, FakeDevice({"a": 100.0, "b": 200.0}, noise=0.003, seed=seed), before)
        assert words(report) == {"a.tflite": "alike", "b.tflite": "alike"}


def test_what_is_in_one_alone_is_named(models: list[Path], before: Path, tmp_path: Path) -> None:
    other = tmp_path / "c.tflite"
    other.write_bytes(b"\x1c\0\0\0TFL3" + b"9" * 500)
    report = bench([models[0], other], FakeDevice(lambda job: 100.0), before)
    assert report.against is not None
    assert report.against.gone == ("b.tflite on litert/xnnpack",)
    assert report.against.new == ("c.tflite on litert/xnnpack",)
    assert "not measured now: b.tflite on litert/xnnpack" in said(report)


def test_another_machine_is_refused_before_it_is_measured(models: list[Path], before: Path) -> None:
    device = FakeDevice(lambda job: 100.0, fingerprint=fake_fingerprint(cpu="Another", python="3.12"))
    with pytest.raises(ConfigurationError, match="another machine or with other runtimes: cpu, python differ"):
        bench(models, device, before)
    assert device.batches == 0
    assert not device.is_open


def test_another_packages_runtime_makes_no_other_machine(models: list[Path], before: Path) -> None:
    plain = fake_fingerprint()
    device = FakeDevice(lambda job: 100.0, fingerprint=plain.but(runtimes={**plain.runtimes, "tiny": "1.0"}))
    assert bench(models, device, before).against is not None


def test_another_load_is_refused(models: list[Path], before: Path) -> None:
    plan = MeasurePlan(load=Load(pattern="periodic", rate_hz=30.0))
    with pytest.raises(ConfigurationError, match="was taken with 1 threads, closed loop"):
        bench(models, FakeDevice(lambda job: 100.0), before, plan)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "edgekd.run/1"}', "[1]"])
def test_what_is_no_report(models: list[Path], tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="is no report of a bench"):
        bench(models, FakeDevice(lambda job: 100.0), path)


def test_a_report_that_is_not_there(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        bench(models, FakeDevice(lambda job: 100.0), tmp_path / "nowhere.json")


def test_markdown(models: list[Path], before: Path) -> None:
    lines = bench_markdown(bench(models, FakeDevice({"a": 110.0, "b": 200.0}, noise=0.003, seed=1), before))
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1
    assert "| a.tflite | litert/xnnpack |" in rows[2]
    assert any("1.10x slower than it was" in line for line in lines)


def test_markdown_says_what_noise_keeps_from_being_decided_and_no_name_breaks_it(tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("a|`b.tflite", "c.tflite")]
    for number, path in enumerate(models):
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes([number]) * 900)
    report = bench(models, FakeDevice(lambda job: 100.0, noise=0.3))
    assert report.exit_code == 6
    lines = bench_markdown(report)
    assert lines[0].startswith("**Too noisy to decide everything: ")
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert any(row.startswith(r"| a\|\`b.tflite |") for row in rows)


def test_rows_of_other_threads_are_not_compared(models: list[Path], tmp_path: Path) -> None:
    def report(*threads: int, previous: Path | None = None) -> BenchReport:
        device = FakeDevice(lambda job: 100.0 / (job.threads or 1))
        return run_bench(models[:1], device, LITERT, threads, MeasurePlan(), previous=previous)

    path = tmp_path / "then.json"
    path.write_text(report(1, 2).model_dump_json(by_alias=True))
    now = report(2, 4, previous=path).against
    assert now is not None
    assert [(change.threads, change.word) for change in now.changes] == [(2, "alike")]
    assert now.gone == ("a.tflite on litert/xnnpack, 1 thread",)
    assert now.new == ("a.tflite on litert/xnnpack, 4 threads",)
    with pytest.raises(ConfigurationError, match="was taken with 1, 2 threads"):
        report(4, previous=path)
