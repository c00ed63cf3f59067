from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError, model_validator

from edgekd.documents import dotted, plain, problems_of, read_document, validate
from edgekd.errors import ConfigurationError, Problem
from edgekd.records import Record
from edgekd.units import Duration


class Inner(Record):
    temperature: float = 4.0
    weight: float = 1.0


class Loss(Record):
    """Reads ``{kd: {...}}`` the way a plugin does: the name is stripped before its options are validated."""

    options: Inner

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"options": Inner.model_validate(value["kd"])}


class Outer(Record):
    epochs: PositiveInt = 1
    time: Duration | None = None
    batch: PositiveInt | Literal["dynamic"] = 1
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    loss: Loss | None = None
    share: Annotated[float, Field(ge=0, le=1)] = 0.5


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def _write(text: str | bytes) -> Path:
        path = tmp_path / "file.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        validate(read_document(path), Outer)
    return caught.value.problems


def test_every_problem_is_at_its_line_and_column(write: Callable[[str], Path]) -> None:
    found = problems(write("epochs: 0\ninner:\n  temperatur: 3\nseveral:\n  - weight: 1\n  - weight: x\n"))
    assert [(p.place.line, p.place.column, p.place.field) for p in found] == [
        (1, 1, "epochs"),
        (3, 3, "inner.temperatur"),
        (6, 5, "several[1].weight"),
    ]
    assert found[1].place.width == len("temperatur")
    assert "did you mean `temperature`?" in found[1].remedy
    assert "(fields here: temperature, weight)" in found[1].remedy


def test_the_fields_of_a_plugin_inside_another_are_listed(write: Callable[[str], Path]) -> None:
    document = read_document(write("loss: {kd: {temperatur: 4}}\n"))
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(plain(document.data))
    (problem,) = problems_of(caught.value, document, Outer, inner=lambda where: {"kd": Inner}.get(str(where[-1])))
    assert (problem.place.field, problem.place.column) == ("loss.kd.temperatur", 13)
    assert "did you mean `temperature`?" in problem.remedy


def test_a_union_is_one_problem(write: Callable[[str], Path]) -> None:
    (problem,) = problems(write("batch: -1\n"))
    assert problem.place.field == "batch"
    assert problem.message == "found `-1`: should be greater than 0, or should be 'dynamic'"


def test_a_missing_unit_is_named(write: Callable[[str], Path]) -> None:
    (problem,) = problems(write("time: 33\n"))
    assert problem.message == "33 has no unit. Write 33 ms, 33 us or 33 s"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2\n", 2, "duplicate key"),
        ("a: &x 1\nb: *x\n", 1, "aliases"),
        ("a: !!python/name:os.system 1\n", 1, "tags"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge keys"),
        ("%YAML 1.1\n---\na: 1\n", 1, "directives"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a: 1\nb: .nan\n", 2, "finite"),
        ("a: 1\nb: [0, .inf]\n", 2, "finite"),
        ("a: 99999999999999999999\n", 1, "too large"),
        ("1: 2\n", 0, "name is text"),
        ("? [a, b]\n: 1\n", 0, "name is text"),
        ("a: 1\nb: \x07\n", 2, "can't stand"),
        ("- 1\n", 1, "mapping"),
        ("", 0, "is empty"),
        ("just words\n", 1, "mapping"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested deeper"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, 1, "nested deeper"),
        ("a: " + "9" * 5000, 0, ""),
    ],
)
def test_hostile_text_is_a_problem_at_its_line(write: Callable[[str], Path], text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_document(write(text))
    (problem, *_) = caught.value.problems
    assert words in problem.message
    assert problem.place.line == line


def test_text_that_is_not_utf8_says_where(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(ConfigurationError, match="UTF-8") as caught:
        read_document(write(b"a: 1\nb: \xff\n"))
    assert caught.value.problems[0].place.line == 2


def test_a_file_too_large_is_refused_without_reading_it(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigurationError, match="too large"):
        read_document(write("a: 1\n" * 100_000))


def test_a_missing_file_offers_the_nearest(write: Callable[[str], Path]) -> None:
    path = write("a: 1\n")
    with pytest.raises(ConfigurationError, match=r"did you mean `file\.yaml`"):
        read_document(path.with_name("fle.yaml"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        read_document(tmp_path)


def test_windows_line_ends_and_a_byte_order_mark_are_fine(write: Callable[[bytes], Path]) -> None:
    read = validate(read_document(write(b"\xef\xbb\xbfepochs: 3\r\ntime: 3 s\r\n")), Outer)
    assert (read.epochs, str(read.time)) == (3, "3 s")


def test_control_characters_never_reach_the_screen(write: Callable[[str], Path]) -> None:
    (problem,) = problems(write('epochs: "\\e[31mred"\n'))
    assert str(problem).replace("\n", "").isprintable()


def test_paths_as_people_write_them() -> None:
    assert dotted(["recipe", 0, "distill", "loss"]) == "recipe[0].distill.loss"


@pytest.mark.parametrize(
    ("text", "line", "said", "todo"),
    [
        ("a: 1\nb:\n  c: 2\n d: 3\n", "  4 |  d: 3", "not in line with those around it", "in the column of the lines"),
        ("a: 1\nb:\n\tc: 2\n", "  3 |  c: 2", "a tab", "indent with spaces"),
        ("a: b: c\n", "  1 | a: b: c", "a second `:`", "put the value in quotes"),
        ("a: 1\nb\nc: 2\n", "  3 | c: 2", "a field without its `:`", "write name: value"),
    ],
)
def test_a_slip_of_yaml_shows_its_line_and_what_to_do(
    write: Callable[[str], Path], text: str, line: str, said: str, todo: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_document(write(text))
    shown = str(caught.value)
    assert f"is not valid YAML: {said}" in shown or said in shown
    assert line in shown
    assert "| " + " " * (caught.value.problems[0].place.column - 1) + "^" in shown
    assert todo in shown


def test_a_value_in_place_of_a_list_or_of_fields_is_reported_with_how_to_write_it(write: Callable[[str], Path]) -> None:
    class Budget(Record):
        usual: ClassVar[str] = "p95"
        p50: Duration | None = None
        p95: Duration | None = None

    class Asked(Record):
        latency: Budget | None = None
        strides: tuple[PositiveInt, ...] = (1,)

    with pytest.raises(ConfigurationError) as caught:
        validate(read_document(write("latency: 500 us\nstrides: 2\n")), Asked)
    latency, strides = caught.value.problems
    assert latency.remedy.startswith("write latency: {p95: 500 us}")
    assert (strides.message, strides.remedy) == ("found `2`: a list is expected", "write strides: [2]")


def test_what_was_refused_is_not_called_missing_too(write: Callable[[str], Path]) -> None:
    class Asked(Record):
        counts: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

    with pytest.raises(ConfigurationError) as caught:
        validate(read_document(write("counts: [x]\n")), Asked)
    assert len(caught.value.problems) == 1
    with pytest.raises(ConfigurationError, match="at least 1 item"):
        validate(read_document(write("counts: []\n")), Asked)


def test_a_file_below_the_working_folder_is_named_from_there(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("nothing: 1\n")
    monkeypatch.chdir(tmp_path)
    assert problems(path)[0].place.file == "file.yaml"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "project.yaml")
    with pytest.raises(ConfigurationError, match="is a pipe or a device; a file is expected"):
        read_document(tmp_path / "project.yaml")
