"""``edgekd export``: what is refused before anything is converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["m.py:build"], 2, "give --output"),
        (["m.py:build", "--output", "o", "--format", "coreml"], 2, "not one of tflite, onnx, openvino"),
        (["m.py:build", "--output", "o", "--precision", "int4"], 2, "not one of float32"),
        (["m.py:build", "--output", "o", "--max-drop", "1"], 2, "for example --max-drop 1%"),
        (["m.py:build", "--output", "o", "--max-drop", "1%"], 2, "--max-drop compares answers to samples"),
        (["m.py:build", "--output", "o", "--mean", "a"], 2, "numbers with commas"),
        (["m.py:build", "--output", "o", "--input", "16000"], 2, "one image"),
        (["m.py:build", "--output", "o", "--target", "pi5-30fps"], 2, "give --data"),
        (["m.py:nobuild", "--output", "o", "--input", "1x8x8"], 3, "no module `m`"),
        (["m.tflite", "--output", "o"], 2, "give the PyTorch model"),
        (["m.onnx", "--output", "o"], 3, "no such file"),
        (["run", "--precision", "int8"], 2, "--precision is for a model"),
        (["run", "--format", "tflite"], 2, "--format is for a model"),
        (["run", "--seed", "0"], 2, "--seed is for a model"),
        (["run", "--format", "json"], 3, "is not a run folder"),
        (["m.py:build", "--output", "o", "--max-drop", "100%"], 2, "a percentage below 100"),
        (["run"], 3, "is not a run folder"),
    ],
)
def test_what_can_not_be_exported_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "run").mkdir()
    assert main(["export", *arguments]) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_answer_as_json_is_asked_for_beside_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "m.tflite", "--output", "o", "--format", "tflite,json"]) == 2
    assert '"schema": "edgekd.error/1"' in capsys.readouterr().out
