from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Backend, Format
from edgekd.devices._protocol import MeasurePlan
from edgekd.errors import UsageError
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.records import digest_json
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, Certificate, Parity
from edgekd.store.comparison import ComparisonAnswer, ComparisonRow, compare_runs
from edgekd.store.records import Accuracy, OutcomeRecord, RunHeader
from edgekd.store.run import Run
from edgekd.targets.verdict import judge


def certified(header: RunHeader, accuracy: float, p95_us: float) -> Certificate:
    """A certificate of a header's run."""
    backend = Backend.model_validate("litert/xnnpack")

    def figure(metric: str, value: float, unit: str, **interval: float) -> Figure:
        subject = header.fingerprint.digest(backend)
        return Figure(
            metric=metric, value=value, unit=unit, kind=EvidenceKind.MEASURED, subject=subject, method="t", **interval
        )

    figures = (
        figure("latency.p95", p95_us, "us", low=p95_us - 1, high=p95_us + 1, confidence=0.95),
        figure("size.file", 2048.0, "B"),
        figure("accuracy", accuracy, ""),
    )
    return Certificate(
        created=header.created,
        target=header.target,
        fingerprint=header.fingerprint,
        task=header.task,
        candidate=Candidate(family="resnet", arch=Arch.of({"width": 8}), backend=backend),
        model="model.tflite",
        format=Format.TFLITE,
        backend=backend,
        files=(),
        figures=figures,
        plan=MeasurePlan(),
        verdict=judge(header.target, figures),
        accuracy=Accuracy(value=accuracy, kind=AccuracyKind.ARTEFACT, split="test", samples=200, method="the file"),
        float_twin=None,
        parity=Parity(samples=8, agree=8, largest=0.0, unit="of the largest logit"),
        teacher="none",
        export={},
        versions={},
        seed=0,
        run="paper",
    )


def begun(folder: Path, header: RunHeader, accuracy: float | None = None, p95_us: float = 100.0) -> Path:
    run = Run.create(folder, header.but(id=folder.name))
    if accuracy is not None:
        run.write(OutcomeRecord(exit_code=0, summary="certified", chosen=1, seconds=75.0))
        (folder / "bundle").mkdir()
        write_json(folder / "bundle" / CERTIFICATE, certified(header, accuracy, p95_us))
    return folder


def row(answer: ComparisonAnswer, what: str) -> ComparisonRow:
    return next(row for row in (*answer.results, *answer.settings) if row.what == what)


def project(epochs: int, seed: int) -> dict[str, object]:
    recipe, search = [{"distill": {"epochs": epochs}}], {"seed": seed}
    return {"schema": "edgekd.project/1", "recipe": recipe, "search": search, "teacher": None}


def test_what_two_runs_certified_stands_side_by_side(
    header: RunHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    begun(tmp_path / "runs" / "a", header.but(project=project(3, 7)), 0.9, 100.0)
    begun(tmp_path / "runs" / "b", header.but(project=project(30, 8), seed=8), 0.95, 120.0)
    answer = compare_runs([Path("runs")])
    assert [run.name for run in answer.runs] == ["a", "b"]
    assert row(answer, "accuracy, test").values == (0.9, 0.95)
    # Wilson's intervals of 180 and 190 of 200
    assert row(answer, "accuracy, test").cells == ("90.00% [85.1%, 93.4%]", "95.00% [91.0%, 97.3%]")
    assert row(answer, "latency.p95").values == (100.0, 120.0)
    assert row(answer, "time").cells == ("75 s", "75 s")
    assert {each.what: each.cells for each in answer.settings} == {
        "recipe[0].distill.epochs": ("3", "30"),
        "search.seed": ("7", "8"),
    }
    assert "edgekd bench runs/a/bundle/model.tflite runs/b/bundle/model.tflite" in answer.next
    assert any("different sessions" in note for note in answer.notes)
    lines = answer.lines()
    assert max(len(line) for line in lines if not line.startswith(("next:", "note"))) <= 80
    assert any(line.startswith("recipe[0].distill.epochs") for line in lines)


def test_what_does_not_compare_is_said(header: RunHeader, tmp_path: Path) -> None:
    other = header.but(
        fingerprint=header.fingerprint.but(cpu="another"), task=header.task.but(data=digest_json("other"))
    )
    answer = compare_runs([begun(tmp_path / "a", header, 0.9), begun(tmp_path / "b", other, 0.9)])
    assert any("different data" in note for note in answer.notes)
    assert any("different devices (cpu" in note for note in answer.notes)


def test_a_run_without_a_certificate_has_its_state(header: RunHeader, tmp_path: Path) -> None:
    failed = begun(tmp_path / "b", header)
    Run.open(failed).write(OutcomeRecord(exit_code=5, summary="no candidate meets paper", chosen=None, seconds=9.0))
    answer = compare_runs([begun(tmp_path / "a", header, 0.9), failed, begun(tmp_path / "c", header)])
    assert answer.results[0].cells == ("certified", "no candidate meets paper", "not finished")
    assert row(answer, "latency.p95").cells[1:] == ("-", "-")
    assert row(answer, "latency.p95").values == (100.0, None, None)
    assert answer.next == ""
    assert "the same was asked for" in answer.lines()


def test_more_runs_than_fit_side_by_side_go_on_below(
    header: RunHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folders = [begun(tmp_path / f"run-{index}", header, 0.9) for index in range(7)]
    lines = compare_runs(folders).lines()
    assert max(len(line) for line in lines if not line.startswith(("next:", "note"))) <= 80
    assert sum(line.count("90.00%") for line in lines) == 7


def test_a_folder_without_a_run_is_named_and_a_run_is_not_compared_with_itself(
    header: RunHeader, tmp_path: Path
) -> None:
    one = begun(tmp_path / "a", header, 0.9)
    with pytest.raises(UsageError, match=r"no run in .*typo"):
        compare_runs([one, tmp_path / "typo"])
    with pytest.raises(UsageError, match="fewer than two"):
        compare_runs([one, tmp_path / "a" / ".." / "a"])


def test_one_run_is_no_comparison(header: RunHeader, tmp_path: Path) -> None:
    begun(tmp_path / "a", header)
    with pytest.raises(UsageError, match="fewer than two runs below"):
        compare_runs([tmp_path, tmp_path / "a"])
