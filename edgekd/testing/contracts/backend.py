"""The promises of a backend whose runtime the agent drives, as tests: subclass `BackendContract`.

- its record comes by an entry point of ``edgekd.backends``, under its own name, and says what the runtime needs;
- the agent's module is Python 3.8 source that imports numpy, the runtime and the agent, and nothing else;
- the agent finds the runtime on this computer, and loads the model that the test gives;
- a file that is no model is refused with a reason;
- a batch has one sample a process, with ordered quantiles;
- answers to samples come back, one row a sample, finite, the same each time.

The runtime has to be installed here. A backend that only simulates belongs to a kind of device of its own.
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd import plugins
from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan, Outcome
from edgekd.devices.local import LocalDevice
from edgekd.devices.zipapp import build_agent
from edgekd.ir.backends import BackendSpec

__all__ = ["BackendContract"]

_PLAN = MeasurePlan(processes=2, rounds=3, round_ms=2.0, warmup_ms=2.0, sentinel=False)
_OLDEST = (3, 8)


class BackendContract:
    """Tests every backend has to pass."""

    @pytest.fixture
    def spec(self) -> BackendSpec:
        """The record. Must be overridden."""
        raise NotImplementedError("override the fixture `spec` with the record of your backend")

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """A model file that the backend loads, of its native format. Must be overridden."""
        raise NotImplementedError("override the fixture `model` with a model file that your backend loads")

    @pytest.fixture
    def samples(self) -> list[NDArray[np.generic]]:
        """Three samples or more for it, an array an input, first axis = samples. Must be overridden."""
        raise NotImplementedError("override the fixture `samples` with samples for your model")

    @pytest.fixture
    def job(self, spec: BackendSpec, model: Path) -> Job:
        """The model on the backend."""
        return Job(artefact=Artefact.of(model), backend=Backend.model_validate(spec.name))

    @pytest.fixture
    def session(self) -> Iterator[DeviceSession]:
        """This computer, open."""
        with LocalDevice(name="this-computer").open() as opened:
            yield opened

    def test_its_record_is_registered(self, spec: BackendSpec) -> None:
        assert spec.name in plugins.names("edgekd.backends")
        assert plugins.load("edgekd.backends", spec.name) == spec

    def test_its_record_says_what_the_runtime_needs(self, spec: BackendSpec) -> None:
        assert spec.precisions
        assert {"execute", "measure"} <= spec.can
        assert all(home.module and home.distributions for home in spec.runtime.homes)
        assert spec.runtime.name in spec.runtime.installs
        for example in (spec.example, spec.example_heads):
            ast.parse(example.format(model="model", module=spec.runtime.homes[0].module, threads=1, floats="f32"))

    def test_the_agents_module_stands_alone(self, spec: BackendSpec) -> None:
        with zipfile.ZipFile(io.BytesIO(build_agent())) as agent:
            text = agent.read(f"edgekd/agent/runtimes/{spec.driver}.py").decode()
        allowed = {"numpy", *(home.module.partition(".")[0] for home in spec.runtime.homes)}
        for node in ast.walk(ast.parse(text, feature_version=_OLDEST)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                top = module.partition(".")[0]
                assert top in allowed or top in sys.stdlib_module_names or module.startswith("edgekd.agent."), module

    def test_the_agent_finds_the_runtime(self, spec: BackendSpec, session: DeviceSession) -> None:
        found = session.describe()
        assert found.runtimes[spec.runtime.name]
        assert spec.provider in found.providers[spec.runtime.name]

    def test_it_loads_the_model_and_refuses_what_is_none(
        self, spec: BackendSpec, job: Job, session: DeviceSession, tmp_path: Path
    ) -> None:
        broken = tmp_path / f"broken{spec.formats[0].suffix}"
        broken.write_bytes(b"no model")
        bad = job.but(artefact=Artefact.of(broken))
        answers = session.prepare([job, bad])
        assert answers[job] is None
        assert "refused" in str(answers[bad])

    def test_it_is_measured(self, job: Job, session: DeviceSession) -> None:
        (result,) = session.measure([job], _PLAN)
        assert result.outcome is Outcome.OK, result.detail
        assert len(result.processes) == _PLAN.processes
        for sample in result.processes:
            assert 0 < sample.min_us <= sample.p5_us <= sample.p50_us <= sample.p95_us

    def test_it_answers_each_sample_and_always_alike(
        self, job: Job, session: DeviceSession, samples: list[NDArray[np.generic]], tmp_path: Path
    ) -> None:
        first, again = self._answers(job, session, samples, tmp_path), self._answers(job, session, samples, tmp_path)
        assert first
        for one, other in zip(first, again, strict=True):
            assert len(one) == len(samples[0])
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(one, other)
        for one, alone in zip(first, self._answers(job, session, [s[1:2] for s in samples], tmp_path), strict=True):
            np.testing.assert_array_equal(one[1:2], alone)

    def _answers(
        self, job: Job, session: DeviceSession, samples: list[NDArray[np.generic]], folder: Path
    ) -> list[NDArray[np.generic]]:
        paths = [folder / f"input-{number}.npy" for number in range(len(samples))]
        for path, array in zip(paths, samples, strict=True):
            np.save(path, array)
        result = session.run(job, paths)
        assert result.outcome is Outcome.OK, result.detail
        return [np.load(path) for path in result.outputs]
