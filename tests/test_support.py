"""docs/support.md is what the committed cells of `benchmarks/zoo.py` give, and no cell is a bug."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import zoo
    return zoo


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (ROOT / "benchmarks/results/zoo").glob("*.json")}


def test_the_page_is_what_the_cells_give(zoo: ModuleType, cells: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "support.md").read_text() == zoo.page(cells)


def test_no_cell_is_a_bug(zoo: ModuleType, cells: dict[str, Any]) -> None:
    """As `python benchmarks/zoo.py --check` says."""
    assert len(zoo.ZOO) >= 32
    assert zoo.faults(cells) == []


def test_most_models_are_taken_and_exact_in_float32_in_every_format(zoo: ModuleType, cells: dict[str, Any]) -> None:
    assert zoo.Page(cells).exact() >= 30


def test_reasons_are_counted(zoo: ModuleType, cells: dict[str, Any]) -> None:
    page = zoo.page(cells)
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, count in rows:
        assert page.count(f"[{number}](#reasons)") == int(count)


def test_a_traceback_a_crash_a_hang_and_a_reason_without_a_remedy_are_faults(zoo: ModuleType) -> None:
    columns = {
        "float32": {"traceback": "Traceback:\nKeyError: 'x'"},
        "dynamic-int8": {"crash": "the process died: SIGSEGV"},
        "int8": {"hang": "no answer within 900 s"},
        "predict": {"reason": "it can't", "do": ""},
    }
    name = zoo.ZOO[0].name
    found = [fault for fault in zoo.faults({f"{name}-onnx": {"columns": columns}}) if fault.startswith(f"{name}-onnx ")]
    assert [fault.split(": ")[1] for fault in found] == ["traceback", "crash", "hang", "no remedy"]
    assert "zoo_cell" not in sys.modules
