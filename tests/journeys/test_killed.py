"""A search killed at two random moments, by the script that proves it with twenty."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prove_kill.py"


def test_a_killed_search_loses_nothing(tmp_path):
    result = tmp_path / "kill.json"
    options = ["--small", "--kills", "2", "--seed", "1", "--longest", "20", "--out", str(result)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(result.read_text())["kills"]) == 2
