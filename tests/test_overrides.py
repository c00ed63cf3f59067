from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from edgekd.errors import ConfigurationError, UsageError
from edgekd.ir.numerics import Precision
from edgekd.overrides import document_of, parsed_change
from edgekd.project import Project, read_project

TEXT = """\
schema: edgekd.project/1
task: {kind: digits}
teacher: {kind: train}
student: {family: resnet, space: {width: [8, 32], depth: [1, 2]}}
target: this-computer
recipe:
  - distill: {loss: {kd: {temperature: 4, weight: 0.9}}, epochs: 3}
  - quantize
export: {input: uint8}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "project.yaml"
    path.write_text(TEXT)
    return path


def mapping() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(TEXT)  # type: ignore[no-any-return]


def changed(file: Path, *written: str) -> Project:
    """The project with changes as the command line takes them."""
    return read_project(document_of(file, dict(map(parsed_change, written))))


def test_a_mapping_is_read_as_the_file_of_its_content(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    read, given = read_project(file), read_project(document_of(mapping(), {}))
    assert given.resolved == read.resolved
    assert given.folder == read.folder
    assert read.written is None, "the file holds it"
    assert given.written == mapping()


def test_what_was_given_is_read_again_from_its_record(file: Path) -> None:
    project = changed(file, "search.finalists=1")
    assert project.written is not None
    again = read_project(document_of(project.written, {}, project.path))
    assert again.resolved == project.resolved
    assert again.folder == project.folder


def test_fields_are_replaced_by_their_path(file: Path) -> None:
    project = changed(
        file, "search.budget=5 min", "recipe[0].distill.epochs=7", "recipe.0.distill.loss.kd.weight=0.5",
        "student.space.width=[8, 16]", "teacher=null", "export={input: float32, batch: 2}",
    )  # fmt: skip
    assert float(project.search.budget) == 300.0, "a section that the file leaves out is made"
    (distill, _quantize) = project.resolved["recipe"]
    assert distill["distill"]["epochs"] == 7
    assert distill["distill"]["loss"]["kd"]["weight"] == 0.5
    assert project.resolved["student"]["space"]["width"] == [8, 16]
    assert project.teacher is None
    assert (project.export.input, project.export.batch) == ("float32", 2)


def test_a_mistake_in_a_replaced_field_is_placed_there(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(file, "search.finalist=1", "recipe[0].distill.epochs=many", "target=nowhere")
    places = {str(problem.place) for problem in caught.value.problems}
    assert places == {"change  search.finalist", "change  recipe[0].distill.epochs", "change  target"}
    assert "did you mean `finalists`?" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("search.budget", "--set search.budget: FIELD=VALUE is expected"),
        ("=3", "--set =3: FIELD=VALUE is expected"),
        ("a..b=3", "--set a..b=3: FIELD=VALUE is expected"),
        ("recipe[2].distill.epochs=3", "recipe is a list of 2\n  its first would be recipe[0]"),
        ("recipe.distill.epochs=3", "recipe is a list of 2"),
        ("task[0]=3", "task is no list\n  its fields: kind"),
        ("recipe[1].train=3", "recipe[1] is `quantize`\n  set recipe[1] as a whole"),
        ("search[0]=3", "search is not there\n  set search as a whole"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(file: Path, written: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(file, written)
    assert said in str(caught.value)


def test_a_value_that_is_no_yaml_is_refused_with_its_field(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--set student\.space.*is not valid YAML"):
        changed(file, "student.space={width: [8")
    with pytest.raises(ConfigurationError, match="anchors"):
        changed(file, "student.space=&a [8]")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("task", {"kind": object()}, "<mapping>  task.kind: found a value of type object"),
        ("famly", {}, "<mapping>  famly: no such field"),
        (3, {}, "a field's name is text; found `3`"),
        ("search", {"budget": float("nan")}, "<mapping>  search.budget: found `nan`"),
    ],
)
def test_a_mapping_with_mistakes_is_reported_as_a_file_is(field: Any, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_project(document_of({**mapping(), field: value}, {}))
    assert said in str(caught.value)


def test_paths_and_tuples_of_python_are_taken(tmp_path: Path) -> None:
    given = mapping()
    given["student"]["space"] = {"width": (np.int64(8), 32), "depth": (1, 2)}
    given["recipe"][1] = {"quantize": {"precision": Precision.DYNAMIC_INT8}}
    given["task"] = {"kind": "image-classification", "data": tmp_path / "no.npz"}
    with pytest.raises(ConfigurationError, match=r"no\.npz"):
        read_project(document_of(given, {})).task.spec  # noqa: B018  # reads the file
    taken = read_project(document_of({**mapping(), **{part: given[part] for part in ("student", "recipe")}}, {}))
    assert taken.resolved["student"]["space"]["width"] == [8, 32]
    assert taken.resolved["recipe"][1]["quantize"]["precision"] == "dynamic-int8"


def test_the_given_mapping_is_left_alone() -> None:
    given = mapping()
    read_project(document_of(given, {"recipe[0].distill.epochs": 9, "search.finalists": 1}))
    assert given == mapping()
