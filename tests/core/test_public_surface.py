from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import edgekd

HEAVY = ("torch", "onnxruntime", "openvino", "ai_edge_litert", "litert_torch", "tensorflow", "rich")


def test_importing_edgekd_and_its_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, edgekd, edgekd.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


CORE = (
    "artefacts", "documents", "errors", "events", "evidence", "external_weights", "inheritance", "kernels", "plugins",
    "records", "references", "shelves", "units", "wire",
)  # fmt: skip


@pytest.mark.parametrize("name", CORE)
def test_the_core_names_what_it_gives(name: str) -> None:
    """Every class and function without an underscore, and nothing that isn't there."""
    module = importlib.import_module(f"edgekd.{name}")
    members = inspect.getmembers(module, lambda each: inspect.isclass(each) or inspect.isfunction(each))
    defined = {public for public, value in members if value.__module__ == module.__name__ and public[0] != "_"}
    assert defined <= set(module.__all__) <= set(vars(module))


def test_every_room_says_what_it_is() -> None:
    for room in pkgutil.iter_modules(edgekd.__path__):
        module = importlib.import_module(f"edgekd.{room.name}")
        assert module.__doc__, room.name
        assert "laceholder" not in module.__doc__, room.name
