"""A runtime or provider that isn't there is refused by name, with those that are."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.agent import runtimes
from edgekd.agent.runtimes import open_runtime
from edgekd.agent.runtimes.base import Refusal


def test_an_unknown_runtime() -> None:
    with pytest.raises(Refusal, match=r"no runtime tvm here \(known: litert, null, onnxruntime, openvino, sentinel\)"):
        open_runtime("tvm", "cpu", 1)


@pytest.mark.parametrize("name", ["base", "litert_profiler", "..null"])
def test_no_other_module_is_taken_for_a_runtime(name: str) -> None:
    with pytest.raises(Refusal, match="no runtime"):
        open_runtime(name, "none", 1)


def test_a_provider_that_the_runtime_has_not() -> None:
    with pytest.raises(Refusal, match=r"no backend null/cpu here \(known: null/none\)"):
        open_runtime("null", "cpu", 1)


def test_a_provider_with_a_module_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "PROVIDERS = ('so-fast',)\n\n\ndef open_runtime(provider, threads):\n    return provider, threads\n"
    (tmp_path / "null__so_fast.py").write_text(source)
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])
    assert open_runtime("null", "so-fast", 2) == ("so-fast", 2)
    with pytest.raises(Refusal, match=r"no backend null/cpu here \(known: null/none\)"):
        open_runtime("null", "cpu", 1)
