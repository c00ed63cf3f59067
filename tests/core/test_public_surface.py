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


@pytest.mark.slow
def test_functions_of_the_api_can_be_called_whatever_was_imported_before() -> None:
    """Seven of them share their name with a package, which Python binds in their place once it is imported."""
    code = """
import importlib, inspect, pkgutil, sys, edgekd
assert not [name for name in sys.modules if name.startswith('edgekd.')]
first = edgekd.search
for room in pkgutil.walk_packages(edgekd.__path__, 'edgekd.'):
    if not room.name.startswith(('edgekd.agent', 'edgekd.testing', 'edgekd.cli.main.__main__')):
        importlib.import_module(room.name)
from edgekd import api
assert edgekd.search is first and edgekd.api is api
for name in api.__all__:
    if inspect.isfunction(getattr(api, name)):
        assert inspect.signature(getattr(edgekd, name)) == inspect.signature(getattr(api, name)), name
api.search = api.targets = lambda *given: given
assert edgekd.search('project.yaml') == ('project.yaml',) and edgekd.targets() == ()
assert edgekd.search.trials.loop.TrialLoop  # and it is still the package
print('fine')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert (done.stdout, done.stderr[-2000:]) == ("fine\n", "")


def test_edgekd_has_what_its_api_has_and_says_so() -> None:
    from edgekd import api

    functions = {name for name in api.__all__ if name[0].islower()}
    assert set(edgekd.__all__) == functions | {"__version__", "api"}
    assert functions <= set(dir(edgekd))
    with pytest.raises(AttributeError, match="no attribute `serch`"):
        _ = edgekd.serch  # type: ignore[attr-defined]


CORE = (
    "artefacts", "documents", "errors", "events", "evidence", "external_weights", "extends", "ir.encoding",
    "ir.features", "ir.kernels", "ir.operators", "ir.plan", "ir.space", "ir.support", "plugins", "progress", "records",
    "code_references", "search_path", "units", "wrapping",
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
