"""One small search on the real converters and a real runtime, on this computer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgekd.errors import Interrupted
from edgekd.events import SilentEvents
from tests.journeys.brief import measure_briefly

PROJECT = """
schema: edgekd.project/1
task: {kind: digits, train_limit: 256}
student: {family: resnet, space: {width: [8, 16], depth: [1, 1]}}
target: small
recipe:
  - distill: {loss: {ce: {}}, epochs: 2}
search: {budget: 20 min, trials: 2, batch: 2, reference_archs: 1, finalists: 1, accuracy: {short: {epochs: 1}}}
export: {input: uint8, layout: nhwc, preprocess: fold}
"""
TARGET = """
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets: {latency: {p95: 200 ms}, size: {file: 1 MiB}}
"""


class StopsAtFirstTrial(SilentEvents):
    """Asks to stop once the first trial is written."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def stop(self) -> bool:
        return (self.run / "trials" / "0000.json").is_file()


@pytest.mark.runtime
def test_a_search_is_stopped_resumed_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.devices.local import LocalDevice
    from edgekd.export.converter import Converter
    from edgekd.project import read_project
    from edgekd.records import digest_json
    from edgekd.search.replay import replay
    from edgekd.search.search import run_search
    from edgekd.store.records import RunHeader
    from edgekd.store.run import Run

    measure_briefly(monkeypatch.setattr)
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "small.yaml").write_text(TARGET)
    project = read_project(tmp_path / "project.yaml")
    session = LocalDevice(name=f"test-{tmp_path.name}").open()
    try:
        header = RunHeader(
            id="real",
            command="search",
            created="2026-01-01T00:00:00+00:00",
            project=project.resolved,
            project_file="project.yaml",
            target=project.target,
            task=project.task.spec,
            teacher="none",
            teacher_digest=digest_json(None),
            family="resnet",
            fingerprint=session.describe(),
            versions={},
            seed=0,
            budget_s=1200.0,
        )
        run = Run.create(tmp_path / "run", header)
        with run.writing(), Converter(run.scratch / "convert") as converter:
            with pytest.raises(Interrupted):
                run_search(project, run, session, converter, StopsAtFirstTrial(run.folder))
            first = run.trials()
            assert len(first) == 1
            begun = time.monotonic()
            outcome = run_search(project, run, session, converter, SilentEvents())
            took_s = time.monotonic() - begun
    finally:
        session.close()
    assert run.trials()[:1] == first
    # the batch that was cut short is measured again in the same session: its files must be found again
    assert [(t.outcome, t.detail) for t in run.trials()] == [("measured", "")] * len(run.trials())
    assert outcome.exit_code == 0, outcome
    assert outcome.seconds >= 0.9 * took_s  # and what was spent before
    chosen = next(f for f in run.finalists() if f.chosen)
    assert chosen.artefact is not None
    assert run.resolve(chosen.artefact).path.is_file()
    assert chosen.accuracy is not None
    assert chosen.accuracy.kind == "artefact"
    assert {m.deployment.precision for m in run.deployments().never_slower}  # type: ignore[union-attr]
    trial = next(t for t in run.trials() if t.number == chosen.trial)
    # untrained and trained files are alike enough for a search to believe the untrained one
    assert trial.size_bytes == pytest.approx(chosen.artefact.size_bytes, rel=0.1)
    assert replay(run).same, replay(run).lines()
    assert not (run.scratch / "bench").exists()
