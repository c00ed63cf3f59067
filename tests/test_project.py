from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigurationError, MissingError, UsageError
from edgekd.events import SilentEvents
from edgekd.project import code_of, notice_code, read_project
from edgekd.records import canonical_json
from edgekd.store.differentiable_options import DifferentiableOptions

PROJECT = """\
schema: edgekd.project/1
task: {kind: digits}
teacher: {kind: train}
student: {family: resnet, space: {width: [8, 32], depth: [1, 2]}}
target: this-computer
recipe:
  - distill: {loss: {kd: {temperature: 4, weight: 0.9}}, epochs: 3}
  - quantize
search: {budget: 3 min, seed: 7}
export: {input: uint8}
"""


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "project.yaml"
    path.write_text(text)
    return path


def test_a_project_is_read_into_its_parts(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, PROJECT))
    assert [stage.name for stage in project.recipe] == ["distill", "quantize"]
    assert (project.family.name, project.target.name) == ("resnet", "this-computer")
    assert (float(project.search.budget), project.search.seed, project.search.sampler) == (180.0, 7, "tpe")
    assert (project.export.input, project.export.layout) == ("uint8", "nhwc")
    assert project.accuracy.name == "short"
    assert project.folder == tmp_path.resolve()


def test_resolved_is_json_with_the_defaults_written_out(tmp_path: Path) -> None:
    resolved = read_project(write(tmp_path, PROJECT)).resolved
    assert resolved["export"]["preprocess"] == "fold"
    assert resolved["search"]["finalists"] == 3
    assert resolved["target"]["device"] == "this-computer"
    canonical_json(resolved)


@pytest.mark.parametrize(
    "written", ["differentiable", "{differentiable: }", "{differentiable: {epochs: 3, temperatures: [2, 4]}}"]
)
def test_the_choice_of_an_arch_may_be_trained(tmp_path: Path, written: str) -> None:
    project = read_project(write(tmp_path, PROJECT.replace("seed: 7", f"seed: 7, by: {written}")), budget="5 min")
    asked = project.search.by
    assert asked is not None
    assert (asked.epochs, asked.temperatures) == ((3, (2.0, 4.0)) if "epochs" in written else (12, ()))
    again = read_project(write(tmp_path, canonical_json({**project.resolved, "target": "this-computer"})))
    assert again.resolved == project.resolved


def test_candidates_are_tried_side_by_side_unless_something_else_is_written(tmp_path: Path) -> None:
    assert read_project(write(tmp_path, PROJECT)).search.by == "trials"
    assert read_project(write(tmp_path, PROJECT.replace("seed: 7", "by: trials"))).search.by == "trials"
    assert (
        read_project(write(tmp_path, PROJECT.replace("seed: 7", "by: differentiable"))).search.by
        == DifferentiableOptions()
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("differentiabel", "`differentiable` alone or with its options"),
        ("{differentiable: {epohs: 3}}", "epohs"),
        ("7", "expected `trials`"),
        ("trials, sampler: differentiable", "write by: differentiable"),
    ],
)
def test_what_by_cant_be_is_reported(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, PROJECT.replace("seed: 7", f"by: {written}")))
    assert said in "\n".join(map(str, caught.value.problems))


def test_resolved_reads_back_to_itself(tmp_path: Path) -> None:
    resolved = read_project(write(tmp_path, PROJECT)).resolved
    again = write(tmp_path, canonical_json({**resolved, "target": "this-computer"}))
    assert read_project(again).resolved == resolved


def test_the_command_line_replaces_target_budget_and_seed(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, PROJECT), "pi5-30fps", budget="10 s", seed=3)
    assert (project.target.name, float(project.search.budget), project.search.seed) == ("pi5-30fps", 10.0, 3)
    assert project.resolved["search"]["seed"] == 3


def test_the_device_of_a_target_in_another_folder_is_the_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boards" / "devices").mkdir(parents=True)
    (tmp_path / "boards" / "devices" / "near.yaml").write_text(
        "schema: edgekd.device/1\ntitle: Near\nconnection: {kind: local}\n"
    )
    (tmp_path / "boards" / "quick.yaml").write_text(
        "schema: edgekd.target/1\ndevice: near\nbackends: [litert/xnnpack]\nbudgets: {latency: {p95: 1 s}}\n"
    )
    (tmp_path / "work").mkdir()
    path = write(tmp_path / "work", PROJECT.replace("target: this-computer", "target: ../boards/quick.yaml"))
    assert read_project(path).device_folder == tmp_path / "work" / ".." / "boards"
    monkeypatch.chdir(tmp_path)
    given = read_project(write(tmp_path / "work", PROJECT), "boards/quick.yaml")
    assert (given.target.device, given.device_folder) == ("near", Path("boards"))
    assert read_project(write(tmp_path / "work", PROJECT)).device_folder == tmp_path / "work"


@pytest.mark.parametrize("budget", ["10", "ten min", "0 s"])
def test_a_budget_that_is_none_is_usage(tmp_path: Path, budget: str) -> None:
    with pytest.raises(UsageError):
        read_project(write(tmp_path, PROJECT), budget=budget)


def test_every_problem_of_every_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: edgekd.target/1\ndevice: this-computer\nbackends: [litert/xnnpack]\nbudgets: {latency: {p95: 33}}\n"
    )
    text = """\
schema: edgekd.project/1
task: {kind: digts}
teacher: {kind: torch, module: my_teacher, weights: t.safetensors}
student: {family: resnet, space: {width: [8, 64], dept: [1, 3]}}
target: mine
recipe:
  - distill: {loss: {kd: {temperatur: 4}}, epochs: 3}
  - quantise
  - {distill: {}, quantize: {}}
search: {budget: 30, acuracy: short}
export: {batch: -1, inpt: uint8}
experts: 4
"""
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, text))
    said = {problem.place.field: str(problem) for problem in caught.value.problems}
    expected = {
        "task.kind": "did you mean `digits`",
        "teacher.module": "is not a code reference",
        "teacher.weights": "no such file",
        "student.space.dept": "did you mean `depth`",
        "budgets.latency.p95": "33 has no unit",
        "recipe[0].distill.loss.kd.temperatur": "did you mean `temperature`",
        "recipe[1]": "did you mean `quantize`",
        "recipe[2]": "expected a name, or one name with its options: {name: {...}}",
        "search.budget": "30 has no unit",
        "search.acuracy": "did you mean `accuracy`",
        "export.batch": "should be greater than 0, or should be 'dynamic'",
        "export.inpt": "did you mean `input`",
        "experts": "did you mean `export`",
    }
    assert set(said) == set(expected)
    for field, words in expected.items():
        assert words in said[field], field
    for problem in caught.value.problems:
        assert problem.place.line > 0
        assert problem.place.column > 0
        assert problem.place.excerpt


def test_missing_sections_are_said_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, "task: [digits]\n"))
    fields = {problem.place.field for problem in caught.value.problems}
    assert fields == {"schema", "task", "student", "target"}


def test_an_unknown_target_is_placed_in_the_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean `this-computer`") as caught:
        read_project(write(tmp_path, PROJECT.replace("target: this-computer", "target: this-compute")))
    assert caught.value.problems[0].place.line == 5


def test_unknown_losses_and_samplers_offer_the_nearest(tmp_path: Path) -> None:
    text = PROJECT.replace("kd:", "kdd:").replace("seed: 7", "sampler: tpee, accuracy: {shrt: {}}")
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, text))
    said = "\n".join(map(str, caught.value.problems))
    for name in ("`kd`", "`tpe`", "`short`"):
        assert f"did you mean {name}" in said


def test_reading_imports_no_code_of_the_persons(tmp_path: Path) -> None:
    (tmp_path / "never_imported_model.py").write_text("raise SystemExit('imported')\n")
    np.savez(tmp_path / "d.npz", x_train=np.zeros((4, 8, 8), np.uint8))
    (tmp_path / "w.safetensors").write_bytes(b"")
    text = PROJECT.replace("{kind: train}", "{kind: torch, module: never_imported_model:build}").replace(
        "{family: resnet, space: {width: [8, 32], depth: [1, 2]}}",
        "{family: pruned, model: never_imported_model:build, weights: w.safetensors}",
    )
    said: list[str] = []
    project = read_project(write(tmp_path, text), notice=said.append)
    assert "never_imported_model" not in sys.modules
    assert project.accuracy.name == "inherit"
    assert len(said) == 1
    assert "never_imported_model:build" in said[0]
    read_project(project.path, notice=said.append)
    assert len(said) == 1


def test_code_is_found_wherever_it_is_named() -> None:
    data = {
        "a": ["m:f", {"b": "pkg/my.py:build"}],
        "f": "../my models/3.py:build",
        "c": "https://example.org",
        "d": "12:30",
        "e": "a b:c",
    }
    assert code_of(data) == ("m:f", "pkg/my.py:build", "../my models/3.py:build")
    assert code_of({"program": "m.pt2", "other": "m.onnx"}) == ("m.pt2",)


def test_the_notice_is_given_again_where_it_cant_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    notices = list[str]()
    notice_code(tmp_path, ("m:f",), notices.append)
    notice_code(tmp_path, ("m:f",), notices.append)
    assert len(notices) == 2


def test_a_notice_that_was_not_shown_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    notices = list[str]()
    notice_code(tmp_path, ("m.pt2",), SilentEvents().notice)
    notice_code(tmp_path, ("m.pt2",), notices.append)
    notice_code(tmp_path, ("m.pt2",), notices.append)
    assert notices == [f"this project runs code from {tmp_path}: m.pt2"]


def test_a_part_that_is_not_installed_is_missing_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd import plugins

    real = plugins.load

    def load(group: str, name: str, *rest: object) -> object:
        if name == "resnet":
            raise MissingError("the family `resnet` can't be imported", "install it")
        return real(group, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(plugins, "load", load)
    with pytest.raises(MissingError, match="resnet"):
        read_project(write(tmp_path, PROJECT))
    with pytest.raises(ConfigurationError, match="resnet"):
        read_project(write(tmp_path, PROJECT.replace("3 min", "3")))


def test_a_mistake_in_a_teachers_teacher_offers_its_own_fields(tmp_path) -> None:
    text = PROJECT.replace("{kind: train}", "{kind: train, teacher: {kind: train, widht: 48}}")
    with pytest.raises(ConfigurationError) as raised:
        read_project(write(tmp_path, text))
    (problem,) = raised.value.problems
    assert problem.place.field == "teacher.teacher.widht"
    assert "did you mean `width`?" in problem.remedy


@pytest.mark.parametrize(
    ("before", "after", "field", "words"),
    [
        (
            "{temperature: 4",
            "{temperature: {from: 8, to: 2, ends: 0.5}",
            "recipe[0].distill.loss.kd.temperature.ends",
            "`end`",
        ),
        (
            "{kind: train}",
            "{kind: ensemble, members: [{kind: train}, {kind: train, widht: 8}]}",
            "teacher.members[1].widht",
            "`width`",
        ),
        (
            "{kind: train}",
            "{kind: heads, of: {mask: {kind: train}, things: {kind: train, widht: 8}}}",
            "teacher.of.things.widht",
            "`width`",
        ),
        ("{kind: train}", "{kind: ensemble, members: [{kind: train}, {kind: trian}]}", "teacher.members[1]", "`train`"),
        ("{kind: train}", "{kind: train, teacher: {kind: trian}}", "teacher.teacher", "`train`"),
    ],
)
def test_what_is_misspelt_inside_options_is_reported_with_its_place(
    tmp_path: Path, before: str, after: str, field: str, words: str
) -> None:
    assert before in PROJECT
    with pytest.raises(ConfigurationError) as raised:
        read_project(write(tmp_path, PROJECT.replace(before, after)))
    (problem,) = raised.value.problems
    assert problem.place.field == field
    assert f"did you mean {words}" in str(problem)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["search", "compress", "distill"])
def test_a_file_that_cannot_be_read_is_refused_before_anything_heavy_is_imported(tmp_path: Path, command: str) -> None:
    write(tmp_path, PROJECT.replace("task: {", "task: {{"))
    code = (
        "import sys\nfrom edgekd.cli.main import main\n"
        "code = main([sys.argv[1], 'project.yaml'])\n"
        "print(code, [name for name in ('torch', 'scipy', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "3 []\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("budget: 3 min", "budget: 60", "60 has no unit. Write 60 s, 60 min or 60 h"),
        ("student: {family: resnet, space: {width: [8, 32], depth: [1, 2]}}\n", "", "student: {family: resnet}"),
        (
            "{family: resnet, space: {width: [8, 32], depth: [1, 2]}}",
            "{family: [mobilenet, resnet]}",
            "one name of a family",
        ),
        ("{width: [8, 32], depth: [1, 2]}", "{stem_stride: 2}", "write stem_stride: [2]"),
        ("task: {kind: digits}", "task: digits", "for example task: {kind: digits}"),
        ("target: this-computer", "target: raspberrypi5", "`raspberry-pi-5` is a device; targets for it: pi5-30fps"),
    ],
)
def test_a_likely_mistake_is_reported_with_how_to_write_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PROJECT
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, PROJECT.replace(old, new)))
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("tflite", "no backend `tflite`. .tflite files run on `litert/xnnpack`"),
        ("onnx", "no backend `onnx`. .onnx files run on `onnxruntime/cpu`"),
        ("litert", "no backend `litert`. did you mean `litert/xnnpack`?"),
        ("onnxruntime/cuda", "no backend `onnxruntime/cuda`. did you mean `onnxruntime/cpu`?"),
    ],
)
def test_a_backend_that_is_none_names_the_one_that_was_meant(tmp_path: Path, backend: str, said: str) -> None:
    text = f"schema: edgekd.target/1\ndevice: this-computer\nbackends: [{backend}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_project(write(tmp_path, PROJECT.replace("this-computer", "mine")))
    (problem,) = caught.value.problems
    assert problem.message.startswith(said)
