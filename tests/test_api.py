"""What is reported before anything is opened or trained."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from edgekd import api
from edgekd.artefacts import Backend
from edgekd.cli.main import COMMANDS, group
from edgekd.devices._protocol import MeasurePlan
from edgekd.errors import ConfigurationError, MissingError, UsageError
from edgekd.events import SilentEvents
from edgekd.ir.numerics import Precision
from edgekd.measure.tables import LatencyTable, TableRow, add_rows
from edgekd.project import read_project
from edgekd.records import Shown
from edgekd.running import with_teacher
from edgekd.testing.fakes.device import FakeDevice, fake_fingerprint
from tests.measure.prediction.device_on_paper import some_networks

OTHERWISE_CALLED = {
    "init": "begin",
    "devices list": "devices",
    "devices probe": "probe",
    "devices install": "install",
    "tables list": "tables",
    "tables export": "export_table",
    "tables import": "import_tables",
    "targets list": "targets",
    "targets show": "target",
    "targets check": "target",
    "targets new": "new_target",
}
TABLE = LatencyTable(
    device="board",
    fingerprint=fake_fingerprint(),
    backend=Backend.model_validate("litert/xnnpack"),
    precision=Precision.INT8,
    rows=(TableRow(kernels=some_networks(1, seed=0)[0], p5_us=10.0),),
)
PROJECT = """\
schema: edgekd.project/1
task: {kind: digits}
teacher: {kind: train}
student: {family: resnet}
target: meter
recipe: [distill]
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [litert/xnnpack]
budgets: {BUDGET}
"""


def returned(function: Callable[..., Any]) -> type:
    """What a function of the API returns; most of these types are imported where they are needed."""
    annotation = inspect.signature(function).return_annotation
    if not isinstance(annotation, str):
        return annotation
    named = vars(inspect.getmodule(function))
    if annotation in named:
        return named[annotation]
    imports = ast.walk(ast.parse(inspect.getsource(inspect.getmodule(function))))
    (room,) = {
        one.module
        for one in imports
        if isinstance(one, ast.ImportFrom) and annotation in [alias.name for alias in one.names]
    }
    return getattr(importlib.import_module(room), annotation)


FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]


@pytest.mark.parametrize("name", sorted({*FUNCTIONS} - {"new_target", "trials"}))
def test_an_answer_is_shown_as_the_command_line_prints_it(name: str) -> None:
    assert issubclass(returned(getattr(api, name)), Shown)


def test_a_bench_has_the_threads_of_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekd.devices.catalogue.open_device", lambda name, **_: FakeDevice(lambda job: 100.0, name=name)
    )
    model = tmp_path / "net.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3")
    plan = MeasurePlan(threads=4)
    assert api.bench([model], plan=plan).threads == (4,)
    assert api.bench([model], plan=plan, threads=2).threads == (2,)
    (one, two) = api.bench_devices([model], ["one", "two"], plan=plan).reports
    assert one.threads == two.threads == (4,)
    with pytest.raises(UsageError, match="one number at least"):
        api.bench_devices([model], ["one", "two"], threads=0)


def test_a_device_without_a_connection_keeps_the_others_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str, **_: object) -> FakeDevice:
        if name == "described":
            raise MissingError("`described`: nothing says how to reach it", "give it a connection")
        return FakeDevice(lambda job: 100.0, name=name)

    monkeypatch.setattr("edgekd.devices.catalogue.open_device", opened)
    model = tmp_path / "net.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3")
    found = api.bench_devices([model], ["one", "described"])
    assert [report.device for report in found.reports] == ["one"]
    assert ([one.device for one in found.missing], found.exit_code) == (["described"], 4)


def test_every_command_has_its_function() -> None:
    commands = list[str]()
    with click.Context(group) as root:
        for name in COMMANDS:
            command = group.get_command(root, name)
            inner = [f"{name} {each}" for each in command.commands] if isinstance(command, click.Group) else [name]
            commands += inner
    assert set(OTHERWISE_CALLED) < set(commands)
    for name in commands:
        function = OTHERWISE_CALLED.get(name, name)
        assert function in api.__all__, name
        assert callable(getattr(api, function)), name


def test_tables_go_out_and_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "here"))
    add_rows(TABLE)
    (kept,) = api.tables().tables
    api.export_table(TABLE.name.removesuffix(".json"), tmp_path / "table.json")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert api.tables().tables == ()
    assert api.import_tables([tmp_path / "table.json"]).tables == (kept,)
    assert api.tables().tables == (kept,)


@pytest.mark.slow
def test_what_this_computer_is(tmp_path: Path) -> None:
    assert api.probe("this-computer").fingerprint.cores >= 1
    assert "this-computer" in {line.name for line in api.devices().devices}
    assert api.new_target("mine", tmp_path, "this-computer") == tmp_path / "mine.yaml"
    assert api.target(str(tmp_path / "mine.yaml")).lines()


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ("energy: {per_inference: 60 mJ}", "energy.per_inference <= 60 mJ"),
        ("power: {average: 2 W}", "power.average <= 2 W"),
    ],
)
def test_a_budget_nobody_can_measure_is_refused_at_once(tmp_path: Path, budget: str, named: str) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("BUDGET", budget))
    with pytest.raises(MissingError, match=named):
        api.search(tmp_path / "project.yaml", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compress_wants_a_family_that_starts_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("budgets: {BUDGET}", ""))
    with pytest.raises(ConfigurationError, match="the family `resnet` trains from nothing"):
        api.compress(tmp_path / "project.yaml", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_does_not_fit_is_reported_with_its_file(tmp_path: Path) -> None:
    shapes = "{kind: shapes, train: 8, test: 2, validation: 2, calibration: 2, side: 32}"
    text = PROJECT.replace("{kind: digits}", shapes).replace(
        "{kind: train}", "{kind: heads, of: {thngs: {kind: train}}}"
    )
    (tmp_path / "project.yaml").write_text(text)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("budgets: {BUDGET}", ""))
    with pytest.raises(ConfigurationError, match="did you mean `things`") as raised:
        with_teacher(read_project(tmp_path / "project.yaml"), SilentEvents())
    (problem,) = raised.value.problems
    assert (problem.place.file, problem.place.field) == (str(tmp_path / "project.yaml"), "teacher")


def test_data_that_is_not_as_expected_is_reported_as_the_tasks_problem(tmp_path: Path) -> None:
    labels = np.arange(200) % 10
    np.savez(tmp_path / "sound.npz", x_train=np.zeros((200, 1, 80), np.int16), y_train=labels, x_test=0, y_test=0)
    text = PROJECT.replace("{kind: digits}", "{kind: image-classification, data: sound.npz}")
    (tmp_path / "project.yaml").write_text(text)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("budgets: {BUDGET}", ""))
    with pytest.raises(ConfigurationError, match="samples are int16") as raised:
        with_teacher(read_project(tmp_path / "project.yaml"), SilentEvents())
    (problem,) = raised.value.problems
    line = 1 + text.split("\n").index("task: {kind: image-classification, data: sound.npz}")
    assert (problem.place.file, problem.place.line) == (str(tmp_path / "project.yaml"), line)
    assert problem.place.field == "task"


def test_a_path_may_be_a_str_and_one_model_needs_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekd.devices.catalogue.open_device", lambda name, **_: FakeDevice(lambda job: 100.0, name=name)
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "here"))
    model = tmp_path / "net.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3")
    for models in (str(model), model, [str(model)]):
        assert len(api.bench(models, events=api.silent).rows) >= 1
    assert api.runs(str(tmp_path)).runs == ()
    add_rows(TABLE)
    api.export_table(TABLE.name.removesuffix(".json"), str(tmp_path / "table.json"))
    assert len(api.import_tables([str(tmp_path / "table.json")]).tables) == 1
    assert api.new_target("mine", str(tmp_path), "this-computer") == tmp_path / "mine.yaml"
    for call in (api.search, api.compress, api.distill, api.replay, api.export, api.report, api.verify):
        with pytest.raises(ConfigurationError):
            call(str(tmp_path / "nothing"))


def test_progress_is_shown_on_stderr_unless_it_is_silenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "edgekd.devices.catalogue.open_device", lambda name, **_: FakeDevice(lambda job: 100.0, name=name)
    )
    model = tmp_path / "net.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3")
    api.bench(str(model), events=api.silent)
    assert capsys.readouterr() == ("", "")
    api.bench(str(model))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("measuring  ")


def test_an_answer_looks_as_the_command_line_prints_it(tmp_path: Path) -> None:
    answer = api.runs(tmp_path)
    assert repr(answer) == str(answer) == "no runs here. Start one: edgekd search project.yaml"
    assert api.targets()._repr_html_().startswith("<pre>")
    assert "&lt;=" in api.targets()._repr_html_()


def test_whose_code_runs_is_reported_before_models_are_built_to_be_timed_or_predicted(monkeypatch) -> None:
    class Heard(SilentEvents):
        def line(self, text: str) -> None:
            heard.append(text)

    def converted(names, weights, shape, formats, folder, events):
        assert events.notice("code of m.py runs")
        raise ConfigurationError.one("enough")

    heard: list[str] = []
    monkeypatch.setattr("edgekd.exporting.export.converted_files", converted)
    monkeypatch.setattr("edgekd.predicting.tables_for", lambda *_: SimpleNamespace(tables=()))
    for ask in (lambda: api.predict("m.py:f", events=Heard()), lambda: api.bench_devices("m.py:f", [], events=Heard())):
        with pytest.raises(ConfigurationError, match="enough"):
            ask()
    assert heard == 2 * ["code of m.py runs"]
