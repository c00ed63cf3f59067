"""A stranger's package: found by its entry points, held to the contracts, usable by name in a project file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "edgekd_example"
PROJECT = """\
schema: edgekd.project/1
task: {kind: stripes, side: 12}
teacher: {kind: stripe-rule}
student: {family: plain, widths: [8, 12]}
target: mine
recipe:
  - distill: {loss: {logit-mse: {weight: 0.7}}, epochs: 2, augment: {crop: 1}}
"""
TARGET = """\
schema: edgekd.target/1
device: core-one
backends: [onnxruntime/cpu]
"""
DEVICE = """\
schema: edgekd.device/1
title: One core of this computer
connection: {kind: pinned, core: 1, lock: LOCK}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installer leaves behind: the package, and its metadata with the entry points of its pyproject.toml."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE / "edgekd_example", site / "edgekd_example")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = site / f"edgekd_example-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines: list[str] = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / "pytest.ini").write_text("[pytest]\n")
    return site


def python(site: Path, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python where the package is installed."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder or site,
        timeout=200,
        check=False,
    )


def suite(site: Path, name: str) -> int:
    """Run one of the package's test files; how many passed."""
    arguments = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", str(site / "pytest.ini")]
    ran = python(site, "-m", "pytest", *arguments, str(PACKAGE / "tests" / name))
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    found = re.search(r"(\d+) passed", ran.stdout)
    assert found, ran.stdout
    return int(found[1])


@pytest.mark.slow  # a whole suite in a process of its own
def test_every_part_keeps_its_contract(installed: Path) -> None:
    assert suite(installed, "test_contracts.py") >= 30


@pytest.mark.runtime
@pytest.mark.skipif(shutil.which("taskset") is None, reason="util-linux's taskset is not installed")
def test_the_device_keeps_its_contract(installed: Path) -> None:
    assert suite(installed, "test_device.py") >= 8


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "mine.yaml").write_text(TARGET)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "core-one.yaml").write_text(DEVICE.replace("LOCK", f"test-{tmp_path.name}"))
    return tmp_path


@pytest.mark.slow
def test_a_project_names_them_all(installed: Path, project: Path) -> None:
    code = (
        "from pathlib import Path; from edgekd.project import read_project; p = read_project(Path('project.yaml'));"
        "print(p.task.spec.input.shape, p.teacher.name, p.family.space(p.task.spec).size,"
        " [name for name, _ in p.recipe[0].loss.parts])"
    )
    ran = python(installed, "-c", code, folder=project)
    assert ran.stdout == "(1, 12, 12) rule for stripes 4 ['ce', 'logit-mse']\n", ran.stderr


TRAIN = """
from pathlib import Path
from edgekd.distill.curve import read_curve
from edgekd.project import read_project
from edgekd.stages import StageContext
from edgekd.students.student import new_student

p, folder = read_project(Path("project.yaml")), Path("stage")
student = new_student(p.family, p.family.space(p.task.spec).at(0), p.task.spec, seed=0)
context = StageContext(
    task=p.task, teacher=p.teacher, device=None, backend=None, folder=folder, cache=Path("cache"), seed=0,
    progress=lambda at: None, stop=lambda: False,
)
p.recipe[0].run(student, context)
print([sorted(point.shares) for point in read_curve(folder)])
"""


@pytest.mark.slow
def test_a_student_trains_by_its_loss(installed: Path, project: Path) -> None:
    ran = python(installed, "-c", TRAIN, folder=project)
    assert ran.stdout == "[['ce', 'logit-mse'], ['ce', 'logit-mse']]\n", ran.stderr


@pytest.mark.slow
def test_a_mistake_in_its_options_is_placed(installed: Path, project: Path) -> None:
    path = project / "project.yaml"
    path.write_text(path.read_text().replace("side: 12", "sides: 12").replace("weight: 0.7", "wait: 0.7"))
    ran = python(installed, "-m", "edgekd.cli.main", "distill", "project.yaml", folder=project)
    assert ran.returncode == 3
    assert "did you mean `side`?" in ran.stderr
    assert "did you mean `weight`?" in ran.stderr


@pytest.mark.slow
def test_without_the_package_the_names_are_unknown(tmp_path: Path, project: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = python(empty, "-m", "edgekd.cli.main", "distill", "project.yaml", folder=project)
    assert ran.returncode == 3
    for name in ("task `stripes`", "teacher `stripe-rule`", "family `plain`"):
        assert f"no {name}" in ran.stderr


@pytest.mark.runtime
@pytest.mark.skipif(shutil.which("taskset") is None, reason="util-linux's taskset is not installed")
def test_its_device_is_opened_by_name(installed: Path, project: Path) -> None:
    ran = python(installed, "-m", "edgekd.cli.main", "devices", "probe", "core-one", folder=project)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("core-one  ")
