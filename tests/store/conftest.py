"""A header of a run that never took place."""

from __future__ import annotations

import pytest

from edgekd.records import digest_json
from edgekd.store.records import RunHeader
from edgekd.targets.target import Target
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.fakes.device import fake_fingerprint


@pytest.fixture
def header() -> RunHeader:
    target = {
        "name": "paper",
        "device": "fake-device",
        "backends": ["litert/xnnpack"],
        "budgets": {"latency": {"p95": "33.3 ms"}, "size": {"file": "64 KiB"}},
        "load": {"pattern": "periodic", "rate": "30/s"},
        "accuracy": {"floor": 0.9},
    }
    return RunHeader(
        id="paper",
        command="search",
        created="2026-01-01T00:00:00+00:00",
        project={"schema": "edgekd.project/1"},
        project_file="project.yaml",
        target=Target.model_validate(target),
        task=TaskSpec(name="p", input=InputSpec(shape=(1, 8, 8)), head=HeadSpec(classes=2), data=digest_json("p")),
        teacher="none",
        teacher_digest=digest_json(None),
        family="resnet",
        fingerprint=fake_fingerprint(),
        versions={"edgekd": "0.1.0"},
        seed=7,
        budget_s=60.0,
    )
