from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.main import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_value_comes_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "pi5-30fps", "--resolved"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (latency,) = [line for line in lines if line.startswith("budgets.latency.p95: 33 ms")]
    assert latency.endswith("pi5-30fps.yaml:8")


def test_a_new_target_is_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "new", "mine", "--from-this-machine", "-q"]) == 0
    assert main(["targets", "check", "mine"]) == 0
    assert main(["targets", "list"]) == 0
    assert "mine " in capsys.readouterr().out
    assert main(["targets", "new", "mine", "--from-this-machine"]) == 2
    assert main(["targets", "new", "pi", "--device", "raspberry-pi-5"]) == 0


def test_a_target_beside_the_project_is_found_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "near.yaml").write_text("schema: edgekd.target/1\ndevice: this-computer\nbackends: [litert/xnnpack]\n")
    assert main(["targets", "check", "near"]) == 0
    assert main(["targets", "show", "near"]) == 0
    assert capsys.readouterr().out.count("near\n") == 2


@pytest.mark.parametrize("options", [[], ["--from-this-machine", "--device", "pixel-8"]])
def test_a_new_target_needs_one_device(options: list[str]) -> None:
    assert main(["targets", "new", "mine", *options]) == 2


def test_a_wrong_target_is_shown_at_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: edgekd.target/1\ndevice: this-computer\nbackends: [litert/xnnpack]\nbudgets:\n  latency: {p95: 33}\n"
    )
    assert main(["targets", "check", "mine.yaml"]) == 3
    assert "mine.yaml:5:13  budgets.latency.p95: 33 has no unit. Write 33 ms" in capsys.readouterr().err
