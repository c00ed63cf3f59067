"""What the doctor knows of converters: found, missing, broken, and one that takes its process down."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edgekd.measure import converters
from edgekd.measure.converters import CONVERTERS, LATE, ConverterPackage, FoundConverter, find_converters

NAMES = list(CONVERTERS)


def line(name, version="1.0", problem=""):
    return json.dumps([name, version, problem]) + "\n"


def test_one_child_answers_for_all():
    asked = []

    def ask(names):
        asked.append(list(names))
        return "".join(map(line, names)), ""

    assert find_converters(ask) == tuple(FoundConverter(name, "1.0", "") for name in NAMES)
    assert asked == [NAMES]


def test_one_that_ends_the_process_is_named_and_the_rest_is_asked_again():
    def ask(names):
        if NAMES[1] not in names:
            return "".join(map(line, names)), ""
        return "".join(map(line, names[: names.index(NAMES[1])])), "killed by SIGSEGV"

    found = find_converters(ask)
    assert [one.name for one in found] == NAMES
    assert [bool(one.problem) for one in found] == [False, True, False, False]
    assert "killed by SIGSEGV" in found[1].problem


def test_one_that_does_not_end_is_late_and_not_broken(monkeypatch):
    monkeypatch.setattr(converters, "CONVERTERS", {"kd_slow": ConverterPackage("kd_slow", "kd_slow", ".onnx")})
    monkeypatch.setattr(converters, "_DEADLINE_S", 0.001)
    assert find_converters() == (FoundConverter("kd_slow", "", LATE),)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages by name and text, found by this process and by its children."""

    def make(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(converters, "CONVERTERS", {name: ConverterPackage(name, name, ".onnx") for name in texts})

    monkeypatch.syspath_prepend(tmp_path)
    return make


def test_each_way_an_import_can_fail(packages):
    packages(kd_whole="", kd_needy="import kd_nowhere.part", kd_broken="raise OSError('no such library')")
    assert converters._look("kd_whole") == FoundConverter("kd_whole", "unknown", "")  # nothing installed it
    assert converters._look("kd_needy").problem == "it needs kd_nowhere, which is not installed"
    assert "OSError: no such library" in converters._look("kd_broken").problem
    converters.CONVERTERS["kd_gone"] = ConverterPackage("kd_gone.part", "kd-gone", ".onnx")
    assert converters._look("kd_gone").problem == "not installed"


def test_answers_stay_apart_from_chatter(tmp_path):
    (tmp_path / "kd_loud.py").write_text("import os; print('Welcome!'); os.write(1, b'from C as well')")
    child = (
        "import sys; from edgekd.measure import converters as c\n"
        "c.CONVERTERS = {'kd_loud': c.ConverterPackage('kd_loud', 'kd_loud', '.onnx')}\n"
        "sys.argv = ['', 'kd_loud']; c.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == ["kd_loud", "unknown", ""]
    assert "Welcome" in said.stderr


@pytest.mark.runtime
def test_the_converters_installed_here_are_found_and_none_is_imported_here(monkeypatch, tmp_path):
    (tmp_path / "onnxscript.py").write_text("raise SystemExit('a script of the folder that a person is in')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(converters, "_DEADLINE_S", 300.0)
    before = set(sys.modules)
    found = find_converters()
    assert [(one.name, one.problem) for one in found] == [(name, "") for name in NAMES]
    assert all(one.version[0].isdigit() for one in found)
    assert not {"litert_torch", "ai_edge_quantizer", "onnxscript"} & (set(sys.modules) - before)
