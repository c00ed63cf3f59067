"""What the pages say is there: links, commands, files of a kind, code."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd import plugins
from edgekd.cli.main import group
from tests.test_api import returned

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PACKAGE = ROOT / "tests" / "plugins" / "edgekd_example"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NESTED = ("targets", "devices")


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def commands(page: Path) -> Iterator[str]:
    """Every ``edgekd ...`` in backquotes, and every line of a block that starts with it."""
    text = page.read_text()
    for _, block in FENCE.findall(text):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if re.match(r"(\$ )?edgekd [a-z]", line))
    yield from (found for found in re.findall(r"`(edgekd [a-z][^`]*)`", FENCE.sub("", text)))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", page.read_text())):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_it_names_are_there(page: Path) -> None:
    """Paths in backquotes that begin with a folder of ours."""
    text = FENCE.sub("", page.read_text())
    for path in re.findall(r"`((?:edgekd|examples|benchmarks|tests|docs)/[\w./]+)`(?!:\n)", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    for command in dict.fromkeys(commands(page)):
        words = shlex.split(command.split("  ")[0])[1:]
        depth = 2 if words[0] in NESTED and len(words) > 1 else 1
        shown = CliRunner().invoke(group, [*words[:depth], "--help"])
        assert shown.exit_code == 0, f"{page.name}: {command}: {shown.output}"
        for option in (word.partition("=")[0] for word in words if word.startswith("--") and word != "--help"):
            assert option in shown.output, f"{page.name}: {command}: no {option}"


def test_commands_are_found_at_all() -> None:
    assert "edgekd targets list" in set(commands(ROOT / "docs" / "targets.md"))
    assert any(command.startswith("edgekd compress") for command in commands(ROOT / "docs" / "own-model.md"))


def yaml_blocks(schema: str) -> list[tuple[str, str]]:
    return [
        (f"{name(page)}-{number}", block)
        for page in PAGES
        for number, block in enumerate(blocks(page, "yaml"))
        if f"schema: {schema}" in block
    ]


PROJECTS, TARGETS, DEVICES = (yaml_blocks(f"edgekd.{kind}/1") for kind in ("project", "target", "device"))


@pytest.mark.parametrize("text", [text for _, text in PROJECTS], ids=[where for where, _ in PROJECTS])
def test_projects_are_valid(text: str, tmp_path: Path) -> None:
    from edgekd.project import read_project

    for file in (ROOT / "examples" / "own_model").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "project.yaml").write_text(text)
    project = read_project(tmp_path / "project.yaml")
    assert project.recipe


@pytest.mark.parametrize("text", [text for _, text in TARGETS], ids=[where for where, _ in TARGETS])
def test_targets_are_valid(text: str, tmp_path: Path) -> None:
    from edgekd.targets.catalogue import load_target

    (tmp_path / "mine.yaml").write_text(text)
    assert load_target(tmp_path / "mine.yaml").limits


@pytest.mark.parametrize("text", [text for _, text in DEVICES], ids=[where for where, _ in DEVICES])
def test_devices_are_valid(text: str, tmp_path: Path) -> None:
    from edgekd.targets.facts import read_facts

    (tmp_path / "mine.yaml").write_text(text)
    assert read_facts(tmp_path / "mine.yaml")


RECIPES = [block for page in PAGES for block in blocks(page, "yaml") if "recipe:" in block and "schema:" not in block]


@pytest.mark.parametrize("text", RECIPES, ids=[str(number) for number in range(len(RECIPES))])
def test_recipes_are_valid(text: str, tmp_path: Path) -> None:
    """Each is read in a small project, and finds nothing wrong with its student."""
    from edgekd.ir.space import Arch
    from edgekd.project import read_project
    from edgekd.recipes.runner import check_recipe
    from edgekd.stages import StageContext
    from edgekd.students.student import new_student
    from edgekd.teachers.student import StudentTeacher

    teacher = "" if "teacher:" in text else "teacher: {kind: train}\n"
    head = "schema: edgekd.project/1\ntask: {kind: digits}\nstudent: {family: resnet}\ntarget: this-computer\n"
    (tmp_path / "project.yaml").write_text(head + teacher + text)
    project = read_project(tmp_path / "project.yaml")
    arch = Arch.of(
        {f"{axis}{stage}": 8 if axis == "width" else 1 for axis in ("width", "depth") for stage in (1, 2, 3)}
    )
    student = new_student(project.family, arch, project.task.spec, 0)
    context = StageContext(
        task=project.task, teacher=StudentTeacher(student, "teacher"), device=None, backend=None, folder=tmp_path,
        cache=tmp_path, seed=0, progress=lambda _: None, stop=lambda: False,
    )  # fmt: skip
    stages = [stage for stage in project.recipe if stage.name not in ("quantize", "auto")]
    assert project.recipe
    assert check_recipe(stages, student, context) == []


def test_there_are_such_blocks() -> None:
    assert len(PROJECTS) >= 3
    assert len(RECIPES) >= 7
    assert TARGETS
    assert DEVICES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def test_the_plugins_page_shows_the_package_that_is_tested() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    shown = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == 14
    for path, block in shown:
        assert block == (PACKAGE / path).read_text(), f"docs/plugins.md shows another {path}"


ROWS = re.findall(r"^\| `(\w+)\((.*?)\)` \| (.*) \|$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE)


def test_the_python_page_has_every_function_once() -> None:
    from edgekd import api

    functions = [found for found in api.__all__ if callable(getattr(api, found)) and found[0].islower()]
    assert sorted(function for function, _, _ in ROWS) == sorted(functions)


@pytest.mark.parametrize(("function", "arguments", "returns"), ROWS, ids=[row[0] for row in ROWS])
def test_the_python_page_has_a_functions_arguments_and_fields(function: str, arguments: str, returns: str) -> None:
    from edgekd import api

    parameters = inspect.signature(getattr(api, function)).parameters.values()
    named: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in named:
            named.append("*")
        named.append(parameter.name)
    assert arguments == ", ".join(named)
    if function in ("new_target", "trials"):  # no record
        return
    answer = returned(getattr(api, function))
    kind, *fields = re.findall(r"`(\w+)`", returns)
    assert kind == answer.__name__
    known = {*answer.model_fields, *(field for field in dir(answer) if isinstance(getattr(answer, field), property))}
    assert {*fields} <= known


def test_the_architecture_page_names_every_room_and_layer() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.stem for path in (ROOT / "edgekd").glob("[a-z]*") if path.name != "py.typed"}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", text.partition("Imports go")[0])} == set()
    (contract, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    documented = re.search(r"Imports go downwards only: (.*?); the core\.", text, re.DOTALL)
    assert documented
    layers = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    core = next(number for number, layer in enumerate(layers) if "plugins" in layer)
    assert [{*layer.strip(" `\n").split()} for layer in documented[1].split(";")] == layers[:core]


def test_every_family_is_documented() -> None:
    documented = set(re.findall(r"^- `(\w+)`: ", (ROOT / "docs" / "projects.md").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    for family in plugins.names("edgekd.families"):
        assert family in documented
        assert f"`{family}`" in readme


@pytest.mark.parametrize("what", ["tasks", "teachers"])
def test_every_kind_a_project_can_name_is_documented(what: str) -> None:
    documented = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "projects.md").read_text(), re.MULTILINE))
    assert set(plugins.names(f"edgekd.{what}")) <= documented


def test_the_changelog_has_each_entry_once_in_lines_of_120() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert [line for line in lines if len(line) > 120] == []
    entries = [line for line in lines if line.startswith("- ")]
    assert len(set(entries)) == len(entries)
