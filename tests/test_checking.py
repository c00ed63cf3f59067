"""What `edgekd check`, and every run before its teacher, finds without training anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd import api
from edgekd.checking import check_project
from edgekd.errors import ConfigurationError, NothingFits
from edgekd.events import SilentEvents
from edgekd.recipes.teach import TrainedTeacher
from edgekd.running import run_project

PROJECT = """\
schema: edgekd.project/1
task: {kind: digits, train_limit: 256}
teacher: {kind: train, width: 8, epochs: 1}
student: {family: resnet, stages: 2, space: {width: [8, 16], depth: [1, 1]}}
target: target.yaml
recipe:
  - distill: {loss: {LOSS}, epochs: 6, batch_size: 32}
search: {budget: 10 min, accuracy: {short: {epochs: 2}}}
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu]
budgets: {size: {file: SIZE}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was trained")

    monkeypatch.setattr(TrainedTeacher, "prepare", never)

    def write(loss: str = "kd: {}", size: str = "256 KiB") -> Path:
        (tmp_path / "target.yaml").write_text(TARGET.replace("SIZE", size))
        path = tmp_path / "project.yaml"
        path.write_text(PROJECT.replace("LOSS", loss))
        return path

    return write


def test_a_place_where_no_run_can_be_is_said_before_the_device_is_opened(project, tmp_path, monkeypatch):
    def opened(*_: object) -> None:
        raise AssertionError("the device was opened")

    monkeypatch.setattr("edgekd.devices.catalogue.open_device", opened)
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigurationError, match="mine: is no folder for a run"):
        run_project("search", project(), None, tmp_path / "mine", None, None, SilentEvents())


@pytest.mark.slow
def test_pictures_are_decoded_before_anything_else_is_looked_at(project, tmp_path):
    rng, reported = np.random.default_rng(0), list[tuple[str, str]]()
    for at in range(60):
        place = tmp_path / "pets" / ("cat", "dog")[at % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{at}.png")
    path = project()
    path.write_text(path.read_text().replace("{kind: digits, train_limit: 256}", "{kind: image-folder, root: pets}"))

    class Watching(SilentEvents):
        def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
            reported.append((stage, note))

        def line(self, text: str) -> None:
            reported.append(("", text))

    check_project(path, None, Watching())
    assert reported[0] == ("pictures", "reading the files")
    lines = [text for stage, text in reported if not stage]
    assert lines[0].startswith("pictures   60 pictures of 2 classes, 45 KiB in ")
    assert [stage for stage, _ in reported].index("") == next(
        at for at, (s, _) in enumerate(reported) if s != "pictures"
    )


def test_says_what_a_run_would_try(project):
    answer = check_project(project(), None, SilentEvents())
    assert (answer.command, answer.filters.space_size, answer.filters.left) == ("search", 4, 4)
    assert answer.candidate_s == pytest.approx(2 * 256 / answer.images_per_s)
    assert answer.finalist_s == pytest.approx(6 * 256 / answer.images_per_s)
    lines = "\n".join(answer.lines())
    assert "data       256 train · 270 validation · 360 test · 128 calibration (of train)" in lines
    assert "space      4 archs, 4 looked at, size.file 0 out: 4 may fit" in lines
    assert "deployed   4 to measure: onnxruntime/cpu (float32, float16, dynamic-int8, int8)" in lines


def test_a_budget_that_leaves_hardly_a_finalist_is_a_caution(project):
    path = project()
    path.write_text(path.read_text().replace("10 min", "1 ms"))
    assert any(line.startswith("caution") for line in check_project(path, None, SilentEvents()).lines())


@pytest.mark.parametrize("run", [api.check, api.search])
def test_a_loss_that_cannot_be_placed_is_refused_before_the_teacher_is_trained(run, project):
    with pytest.raises(ConfigurationError, match="no point of the student `nowhere`") as caught:
        run(project(loss="fitnet: {points: [[nowhere, nowhere]]}"), events=SilentEvents())
    assert "project.yaml:6:1" in str(caught.value)


@pytest.mark.parametrize("run", [api.check, api.search])
def test_a_size_that_no_network_has_is_found_before_the_teacher_is_trained(run, project):
    with pytest.raises(NothingFits, match=r"no network of this space can meet target target \(4 looked at\)") as caught:
        run(project(size="1 KiB"), events=SilentEvents())
    assert "size.file: the least is" in caught.value.remedy
    assert "the target allows 1 KiB" in caught.value.remedy


def test_a_space_is_read_before_the_teacher_is_trained(project):
    path = project()
    path.write_text(path.read_text().replace("width: [8, 16]", "width: [8, 16], resolution: [8, 16]"))
    with pytest.raises(ConfigurationError) as caught:
        api.search(path, events=SilentEvents())
    assert "student" in str(caught.value)


def of_floats(path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.random((40, 1, 8, 8), np.float32) for split in ("train", "validation", "test")}
    labels = {f"y_{split}": np.arange(40) % 4 for split in ("train", "validation", "test")}
    np.savez(path.parent / "floats.npz", **arrays, **labels)
    task = "{kind: image-classification, data: floats.npz}"
    without = ("teacher: {kind: train, width: 8, epochs: 1}\n", "")
    changed(path, ("{kind: digits, train_limit: 256}", task), without)
    path.write_text(path.read_text() + "export: {input: uint8}\n")
    return path


def test_an_input_that_no_format_can_have_is_found_with_what_to_write(project):
    """A task of floats asked for bytes: every conversion failed, and the run said that no backend could run it."""
    path = of_floats(project(loss="ce: {}"))
    with pytest.raises(ConfigurationError, match="raw values are uint8; here they are float32") as caught:
        check_project(path, None, SilentEvents())
    assert caught.value.problems[0].place.field == "export"
    assert caught.value.problems[0].remedy == "write export: {input: float32}"


def changed(path: Path, *changes: tuple[str, str]) -> Path:
    text = path.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return path


@pytest.mark.parametrize("run", [api.check, api.search])
def test_a_share_of_ones_own_model_needs_one(run, project):
    with pytest.raises(ConfigurationError, match="by one's own model"):
        run(project(size="60 % of own"), events=SilentEvents())


@pytest.mark.parametrize("run", [api.check, api.search])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("budget: 10 min,", "budget: 10 min, by: iterative,")], "by: iterative shrinks one trained model"),
        (
            [
                ("budget: 10 min, accuracy: {short: {epochs: 2}}", "budget: 10 min, by: differentiable"),
                ("width: [8, 16]", "width: [8, 16], stem_stride: [1, 2]"),
            ],
            "stem_stride can't vary in a supernet",
        ),
        (
            [
                ("budget: 10 min, accuracy: {short: {epochs: 2}}", "budget: 10 min, by: differentiable"),
                ("distill: {loss: {kd: {}}, epochs: 6, batch_size: 32}", "data-free: {}"),
            ],
            "the recipe has no stage `distill`",
        ),
        (
            [("distill: {loss: {kd: {}}, epochs: 6, batch_size: 32}", "data-free: {loss: {fitnet: {}}}")],
            "data-free: fitnet compares inner activations",
        ),
        (
            [
                ("{kind: train, width: 8, epochs: 1}", "{kind: ensemble, members: [TRAIN, TRAIN]}"),
                ("TRAIN", "{kind: train, width: 8, epochs: 1}"),
                ("kd: {}", "fitnet: {}"),
            ],
            "fitnet needs the teacher's features, and .* provides only logits",
        ),
    ],
    ids=["rounds", "supernet space", "supernet recipe", "data-free", "ensemble"],
)
def test_what_a_run_refuses_is_found_before_the_teacher_is_trained(run, project, changes, said):
    with pytest.raises(ConfigurationError, match=said):
        run(changed(project(), *changes), events=SilentEvents())


@pytest.mark.parametrize("run", [api.check, api.distill])
def test_one_arch_is_held_against_its_export_too(run, project):
    path = changed(of_floats(project(loss="ce: {}")), ("width: [8, 16], depth: [1, 1]", "width: 8, depth: 1"))
    with pytest.raises(ConfigurationError) as caught:
        run(path, events=SilentEvents())
    assert caught.value.problems[0].place.field == "export"


def test_a_precision_that_the_recipe_ends_in_is_no_mistake(project):
    """Encodings come with the recipe: there are none yet when a project is checked."""
    path = project()
    path.write_text(path.read_text().replace("search:", "  - quantize: {precision: int8}\nsearch:"))
    answer = check_project(path, None, SilentEvents())
    assert [str(deployment.precision.value) for deployment in answer.deployments] == ["int8"]


@pytest.mark.slow
@pytest.mark.parametrize("run", [api.check, api.search])
def test_what_is_to_stay_in_float_must_be_there(run, project):
    path = changed(project(), ("search:", "  - quantize: {precision: int8, keep_float: [head, stm]}\nsearch:"))
    with pytest.raises(ConfigurationError, match="keep_float: `stm` matches no operator"):
        run(path, events=SilentEvents())


@pytest.mark.slow
@pytest.mark.parametrize("run", [api.check, api.search])
def test_a_fully_integer_target_has_no_place_for_operators_in_float(run, project, tmp_path):
    path = project()
    changed(path, ("search:", "  - quantize: {precision: int8, keep_float: [head]}\nsearch:"))
    changed(tmp_path / "target.yaml", ("budgets:", "fully_integer: true\nbudgets:"))
    with pytest.raises(ConfigurationError, match="target target is fully integer, and `head:linear` is left in float"):
        run(path, events=SilentEvents())


@pytest.mark.slow
@pytest.mark.parametrize("ratios", ["[0.5, 1.0]", "[0.5]"])
def test_what_can_not_be_pruned_is_said_whatever_the_ratios_are(ratios, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "examples" / "own_model", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "project.yaml"
    path.write_text(path.read_text().replace("[0.25, 0.5, 0.75, 1.0]", ratios))
    answer = check_project(path, None, SilentEvents())
    assert [(each.layers, each.reason) for each in answer.left_whole] == [
        (("14",), "its channels are the model's output")
    ]
    lines = answer.lines()
    said = [line for line in lines if line.startswith(("left whole", "   "))]
    assert said == ["left whole `14`: its channels are the model's output"]
