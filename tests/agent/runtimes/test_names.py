"""A runtime or provider that isn't there is refused by name, with those that are."""

from __future__ import annotations

import pytest

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
