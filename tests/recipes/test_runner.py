from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from edgekd.artefacts import Backend
from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Interrupted, Problem
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.recipes.key import chain, student_digest
from edgekd.recipes.runner import check_recipe, run_recipe
from edgekd.records import Record, digest_json

RUNS, KEEPING = [], []


class Shift(Record):
    """A stage that adds to the last layer's bias, and writes down that it ran."""

    name: ClassVar[str] = "shift"
    by: float
    per_backend: bool = False
    complaint: str = ""
    stops: bool = False

    def check(self, student, context):
        return [Problem(self.complaint)] if self.complaint else []

    def key(self, inputs):
        return digest_json([self.by, inputs])

    def run(self, student, context):
        import copy

        RUNS.append(self.by)
        KEEPING.append(context.keeps_start)
        (context.folder / "scratch.bin").write_bytes(b"large")
        if self.stops:
            raise Interrupted("stopped")
        module = copy.deepcopy(student.module)
        with torch.no_grad():
            module.head.bias += self.by
        return student.but(module=module)


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()
    KEEPING.clear()


def bias(student):
    return student.module.head.bias.detach()


def test_stages_run_in_order_and_once(student, context, tmp_path):
    stages = [Shift(by=1), Shift(by=2)]
    first = run_recipe(stages, student, context(tmp_path), tmp_path / "students")
    again = run_recipe(stages, student, context(tmp_path), tmp_path / "students")
    assert RUNS == [1, 2]
    assert torch.allclose(bias(first.student), bias(student) + 3)
    assert torch.equal(bias(again.student), bias(first.student))
    assert first.key == again.key == chain(tuple(stages), student, context(tmp_path))[-1]
    assert (tmp_path / "students" / first.key / "student.json").is_file()
    assert sorted(p.name for p in (tmp_path / "stage" / first.key).iterdir()) == ["done.json"]


def test_only_the_first_stage_keeps_its_start(student, context, tmp_path):
    """A later one starts from what that has left; resumed, it is still a later one."""
    keeping, stages = replace(context(tmp_path), keeps_start=True), [Shift(by=1), Shift(by=2), Shift(by=3)]
    run_recipe(stages[:2], student, keeping, tmp_path / "students")
    run_recipe(stages, student, keeping, tmp_path / "students")
    assert (RUNS, KEEPING) == ([1, 2, 3], [True, False, False])


def test_a_longer_recipe_goes_on_from_a_shorter_one(student, context, tmp_path):
    run_recipe([Shift(by=1)], student, context(tmp_path), tmp_path / "students")
    result = run_recipe([Shift(by=1), Shift(by=5)], student, context(tmp_path), tmp_path / "students")
    assert RUNS == [1, 5]
    assert torch.allclose(bias(result.student), bias(student) + 6)


def test_a_change_runs_what_follows_it_and_nothing_before(student, context, tmp_path):
    run_recipe([Shift(by=1), Shift(by=2), Shift(by=3)], student, context(tmp_path), tmp_path / "students")
    run_recipe([Shift(by=1), Shift(by=4), Shift(by=3)], student, context(tmp_path), tmp_path / "students")
    assert RUNS == [1, 2, 3, 4, 3]


def test_a_stopped_stage_is_run_again_and_leaves_no_student(student, context, tmp_path):
    with pytest.raises(Interrupted):
        run_recipe([Shift(by=1), Shift(by=2, stops=True)], student, context(tmp_path), tmp_path / "students")
    assert len(list((tmp_path / "students").iterdir())) == 1
    run_recipe([Shift(by=1), Shift(by=2)], student, context(tmp_path), tmp_path / "students")
    assert RUNS == [1, 2, 2]


def test_a_half_written_student_does_not_count(student, context, tmp_path, monkeypatch):
    from edgekd.recipes import runner

    def killed(given, folder):
        Path(folder).mkdir()
        (Path(folder) / "student.json").write_text("{")
        raise KeyboardInterrupt

    save = runner.save_student
    monkeypatch.setattr(runner, "save_student", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe([Shift(by=1)], student, context(tmp_path), tmp_path / "students")
    monkeypatch.setattr(runner, "save_student", save)
    run_recipe([Shift(by=1)], student, context(tmp_path), tmp_path / "students")
    assert RUNS == [1, 1]


def test_all_problems_before_anything_runs(student, context, tmp_path):
    stages = [Shift(by=1, complaint="one"), Shift(by=2), Shift(by=3, complaint="three")]
    assert [problem.message for problem in check_recipe(stages, student, context(tmp_path))] == ["one", "three"]
    with pytest.raises(ConfigurationError) as caught:
        run_recipe(stages, student, context(tmp_path), tmp_path / "students")
    assert len(caught.value.problems) == 2
    assert RUNS == []


@pytest.mark.slow
def test_the_order_of_stages_is_checked_before_any_of_them_runs(student, context, tmp_path):
    quantize, distill = Quantize(precision=Precision.FLOAT16), Distill(loss="ce", epochs=1)
    for stages, says in (
        ([Shift(by=1), quantize, distill], "distill needs float weights, and quantize before it leaves none"),
        ([quantize, Shift(by=1), quantize], "quantize needs float weights, and quantize before it leaves none"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            run_recipe(stages, student, context(tmp_path), tmp_path / "students")
    assert RUNS == []
    assert check_recipe([distill, Shift(by=1), quantize], student, context(tmp_path)) == []


def test_a_student_a_later_stage_refuses_is_found_before_that_stage_runs(student, context, tmp_path):
    class Quantized(Shift):
        def run(self, given, stage_context):
            return given.but(annotations=Annotations(precision=Precision.INT8))

    stages = [Quantized(by=1), Distill(epochs=1)]
    with pytest.raises(ConfigurationError, match="already int8"):
        run_recipe(stages, student, context(tmp_path), tmp_path / "students")


def test_keys_cover_what_goes_in(student, context, tmp_path, teacher):
    plain = context(tmp_path)
    moved = student.but(module=Shift(by=1).run(student, _with_folder(plain)).module)
    keys = {
        chain((Shift(by=1),), given, where)[0]
        for given, where in [
            (student, plain),
            (moved, plain),
            (student, replace(plain, seed=9)),
            (student, replace(plain, teacher=None)),
            (student, replace(plain, keeps_start=True)),
        ]
    }
    assert len(keys) == 5
    assert student_digest(student) != student_digest(moved)


def _with_folder(context):
    context.folder.mkdir(parents=True, exist_ok=True)
    return context


def test_only_a_stage_that_depends_on_the_backend_is_keyed_by_it(student, context, tmp_path):
    here = context(tmp_path)
    there = replace(here, backend=Backend.model_validate("openvino/cpu"))
    stages = (Shift(by=1), Shift(by=2, per_backend=True), Shift(by=3))
    one, two = chain(stages, student, here), chain(stages, student, there)
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, False, False]


def test_no_stages_store_the_student_itself(student, context, tmp_path):
    result = run_recipe([], student, context(tmp_path), tmp_path / "students")
    assert (tmp_path / "students" / result.key / "student.json").is_file()
    assert result.curve == ()


@pytest.mark.slow
def test_curves_are_joined(student, context, tmp_path):
    stages = [
        Distill(epochs=2, batch_size=45, precision="float32"),
        Shift(by=1),
        Distill(epochs=3, batch_size=45, precision="float32", loss="ce"),
    ]
    first = run_recipe(stages, student, context(tmp_path), tmp_path / "students")
    assert [point.epoch for point in first.curve] == [0, 1, 2, 3, 4]
    assert run_recipe(stages, student, context(tmp_path), tmp_path / "students").curve == first.curve


@pytest.mark.parametrize("name", ["weights.safetensors", "student.json"])
def test_a_damaged_student_is_made_again_from_the_last_that_is_whole(student, context, tmp_path, name):
    stages, where = [Shift(by=1), Shift(by=2)], context(tmp_path)
    first = run_recipe(stages, student, where, tmp_path / "students")
    path = tmp_path / "students" / first.key / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(bytes(data))
    again = run_recipe(stages, student, where, tmp_path / "students")
    assert RUNS == [1, 2, 2]
    assert torch.equal(bias(again.student), bias(first.student))
