from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import edgekd

HEAVY = ("torch", "onnxruntime", "openvino", "ai_edge_litert", "litert_torch", "tensorflow", "rich")


def test_importing_edgekd_and_its_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, edgekd, edgekd.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_names_what_it_gives() -> None:
    core = (
        "errors",
        "records",
        "units",
        "evidence",
        "artefacts",
        "external_weights",
        "plugins",
        "documents",
        "references",
        "shelves",
    )
    for name in core:
        module = importlib.import_module(f"edgekd.{name}")
        assert all(hasattr(module, public) for public in module.__all__), name


def test_every_room_says_what_it_is() -> None:
    for room in pkgutil.iter_modules(edgekd.__path__):
        module = importlib.import_module(f"edgekd.{room.name}")
        assert module.__doc__, room.name
        assert "laceholder" not in module.__doc__, room.name
