"""A recipe that is left to be chosen: killed while it chooses, it goes on and doesn't choose again."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def chosen(run: Path) -> dict[str, Any]:
    path = run / "auto.json"
    return json.loads(path.read_text()) if path.exists() else {"scores": [], "ended": ""}


def test_it_chooses_once(edgekd):
    edgekd.change("project.yaml", "width: [8, 16]", "width: [8, 8]")
    text = (edgekd.folder / "project.yaml").read_text()
    start, end = text.index("recipe:"), text.index("search:")
    recipe = "recipe: {auto: {short: 4, epochs: 6, share: 0.9}}\n"
    edgekd.write("project.yaml", text[:start] + recipe + text[end:])
    run = edgekd.folder / "run"
    process = subprocess.Popen(
        [*edgekd.begin, "distill", "project.yaml", "--run", "run"], cwd=edgekd.folder, env=edgekd.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while len(chosen(run)["scores"]) < 3:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = chosen(run)
    assert not before["ended"]
    done = edgekd("distill", "project.yaml", "--run", "run", "--format", "json")
    assert done.returncode == 0, done.stderr
    after = chosen(run)
    assert after["ended"] == "done"
    assert after["scores"][: len(before["scores"])] == before["scores"]
    pairs = [(score["phase"], score["option"], score["epochs"]) for score in after["scores"]]
    assert len(pairs) == len(set(pairs))
    assert json.loads(done.stdout)["auto"]["loss"] == after["loss"]
    assert "recipe that was chosen" in (run / "report.html").read_text()
    again = edgekd("distill", "project.yaml", "--run", "run")
    assert "recipe     " in again.stdout
    assert chosen(run) == after
    assert edgekd("search", "--replay", "run").returncode == 0
