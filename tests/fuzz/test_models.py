"""Damaged model files through description, loading and timing: forty, by the script that proves it with thousands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.runtime

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prove_fuzz.py"


def test_damaged_models_get_a_clear_answer(tmp_path):
    result = tmp_path / "fuzz.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--models", "40", "--out", str(result)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads(result.read_text())["ends"]
    loads = {end: count for end, count in ends.items() if end.startswith("load ")}
    assert sum(loads.values()) == 40
    refused = sum(count for end, count in loads.items() if not end.endswith(": ok"))
    assert 10 <= refused < 40  # otherwise the injuries are too weak, or nothing ever loads
