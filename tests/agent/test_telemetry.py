"""No runtime reports to its vendor what a person does here."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import sys
import multiprocessing.process as process
process.BaseProcess.start = lambda self: None  # the one that would send
{do}
print("edgekd-looked", "openvino_telemetry.main" in sys.modules, "openvino" in sys.modules)
"""
WAYS = {
    "measured": "from edgekd.agent.runtimes import open_runtime; open_runtime('openvino', 'cpu', 1)",
    "converted": """
import io, os
from edgekd.export import worker
sys.argv = ["", str(os.getppid())]
worker.os._exit = print  # so that it can still be looked at
sys.stdin = io.StringIO('{"id": 1, "do": "warm", "format": "openvino"}')
worker.main()
""",
    "examined": "from edgekd.measure import converters; sys.argv = ['', 'openvino convert']; converters.main()",
}


def look(do: str) -> str:
    done = subprocess.run([sys.executable, "-c", LOOK.format(do=do)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.runtime
@pytest.mark.parametrize("way", WAYS)
def test_openvino_sends_nothing(way: str) -> None:
    assert "edgekd-looked False True" in look(WAYS[way])


@pytest.mark.runtime
def test_without_it_openvino_would() -> None:
    """So that a change of OpenVINO's is noticed."""
    assert "edgekd-looked True True" in look("import openvino")
