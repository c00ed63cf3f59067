"""The agent's file: the same bytes for the same sources, small, and standing alone."""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd.devices.zipapp import agent_path, build_agent

ALLOWED = {"numpy", "onnxruntime", "openvino", "ai_edge_litert", "edgekd"}


def sources() -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(build_agent())) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_same_sources_same_bytes() -> None:
    assert build_agent() == build_agent()


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path: Path) -> None:
    path = agent_path(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"torn")
    agent_path.cache_clear()
    assert agent_path(tmp_path) == path
    assert path.read_bytes() == whole
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_it_stands_alone_on_python_3_8() -> None:
    lines = 0
    for name, text in sources().items():
        lines += len(text.splitlines())
        tree = ast.parse(text, name, feature_version=(3, 8))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                top = module.split(".")[0]
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{name} imports {module}"
                assert top != "edgekd" or module.startswith("edgekd.agent"), f"{name} imports {module}"
    # small enough to be read by whoever lets it run on a board; which faults are the board's takes 150 of these lines
    assert 500 < lines < 3500


def test_the_parent_imports_neither_numpy_nor_a_runtime() -> None:
    import subprocess

    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import edgekd.agent.serve;"
        "sys.exit(sorted({'numpy', 'onnxruntime', 'openvino', 'ai_edge_litert'} & set(sys.modules)).__repr__())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(agent_path())], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr.strip() == "[]"
