"""A stranger's package: found by its entry points, held to the contracts, usable by name in a project file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from edgekd import api
from edgekd.testing.sshd import LoopbackSshd, sshd_path

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


@pytest.mark.runtime
def test_the_backend_keeps_its_contract(installed: Path) -> None:
    assert suite(installed, "test_backend.py") >= 7


@pytest.mark.slow
def test_the_simulator_keeps_its_contract(installed: Path) -> None:
    assert suite(installed, "test_simulator.py") >= 10


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


RUNTIME = """
import sys
from pathlib import Path
from edgekd import api
from edgekd.devices.catalogue import open_device
from edgekd.devices._protocol import MeasurePlan
from edgekd.measure.doctor import examine

api.begin(".")
print("init", "onnxruntime/cpu" in Path("here.yaml").read_text(), "onnx_reference" in Path("here.yaml").read_text())
checks = examine(open_device("this-computer"), lambda: []).checks
print("doctor", next((c.state, c.found) for c in checks if c.name == "onnx_reference"))
plan = MeasurePlan(processes=2, rounds=2, round_ms=2.0, warmup_ms=2.0, sentinel=False)
(row,) = api.bench(["model.onnx"], backends=["onnx_reference/numpy"], plan=plan).rows
print("bench", row.outcome.value, row.backend, row.measurement.kind.value)
found = api.probe("this-computer")
print("identity", found.subject, row.measurement.fingerprint == found.fingerprint.digest(row.backend) != found.subject)
"""


def doubling(path: Path) -> None:
    """An ONNX model: relu(x) + x."""
    from onnx import TensorProto, helper, save

    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "y"], ["z"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xz"]
    save(helper.make_model(helper.make_graph(nodes, "doubled", ends[:1], ends[1:])), path)


@pytest.mark.runtime
def test_its_runtime_is_in_init_doctor_and_bench(installed: Path, tmp_path: Path) -> None:
    doubling(tmp_path / "model.onnx")
    ran = python(installed, "-c", RUNTIME, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    version = metadata.version("onnx")
    assert ran.stdout.splitlines() == [
        "init True False",  # its backend is for reference
        f"doctor ('ok', '{version} (numpy)')",
        "bench ok onnx_reference/numpy measured",
        f"identity {api.probe('this-computer').subject} True",  # as without the package
    ]


@pytest.mark.runtime
@pytest.mark.skipif(sshd_path() is None, reason="no sshd: apt-get install openssh-server")
def test_its_runtime_is_installed_on_a_board(installed: Path, tmp_path: Path) -> None:
    """By the board's own pip, from a folder of small packages, and found there by the agent that was sent with it."""
    wheel(tmp_path / "wheels", "numpy", "numpy/__init__.py")
    wheel(tmp_path / "wheels", "onnx", "onnx/__init__.py", "onnx/reference/__init__.py")
    (tmp_path / "devices").mkdir()
    with LoopbackSshd() as server:
        server.stop()
        with (server.folder / "sshd_config").open("a") as config:
            config.write(f"SetEnv PIP_NO_INDEX=1 PIP_FIND_LINKS={tmp_path}/wheels PIP_CONFIG_FILE=/dev/null\n")
        server.start()
        (tmp_path / "devices/board.yaml").write_text(
            "schema: edgekd.device/1\ntitle: A board\n"
            f"connection: {{kind: ssh, host: {server.host}, config: {server.config}, folder: {tmp_path}/there}}\n"
        )
        command = ["devices", "install", "board", "--runtime", "onnx_reference", "--python", sys.executable]
        ran = python(installed, "-m", "edgekd.cli.main", *command, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"board  Python [\d.]+: onnx_reference 9\.0", ran.stdout.splitlines()[0])
    assert list((tmp_path / "there/agent").glob("agent-*.pyz"))


def wheel(folder: Path, name: str, *modules: str) -> None:
    """Version 9.0 of a package without anything in it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-9.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-9.0-py3-none-any.whl", "w") as made:
        for module in modules:
            made.writestr(module, "")
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")


SIMULATED_TARGET = """\
schema: edgekd.target/1
device: toy
backends: [toy_npu/array]
budgets: {latency: {p95: 1 ms}}
"""
SIMULATED_DEVICE = """\
schema: edgekd.device/1
title: A toy NPU, estimated
connection: {kind: toy-npu, clock_mhz: 250}
"""


@pytest.mark.journey
@pytest.mark.timeout(300)
def test_its_simulator_ranks_a_search_and_certifies_nothing(installed: Path, project: Path) -> None:
    (project / "mine.yaml").write_text(SIMULATED_TARGET)
    (project / "devices" / "toy.yaml").write_text(SIMULATED_DEVICE)
    path = project / "project.yaml"
    path.write_text(path.read_text() + "search: {trials: 2, finalists: 1, budget: 60 s}\n")
    ran = python(installed, "-m", "edgekd.cli.main", "search", "project.yaml", "--run", "run", folder=project)
    assert ran.returncode == 4, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "not certified: every figure of toy is simulated, and a certificate needs measured ones"
    assert lines[1].startswith("best by toy-npu 1.0's estimates: ")
    assert "(simulated)" in lines[1]
    assert "caution    toy runs nothing: toy-npu 1.0 estimates." in ran.stderr
    assert not (project / "run" / "bundle").exists()
    assert "simulated" in (project / "run" / "report.html").read_text()
