"""What a shell is given when a person presses the tab key."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekd.cli.main import COMPLETION, main


def offered(words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv(COMPLETION, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert main([]) == 0
    return [line.partition(",")[2] for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("words", "among"),
    [
        ("edgekd se", "search"),
        ("edgekd search --bu", "--budget"),
        ("edgekd search --target pi5", "pi5-30fps"),
        ("edgekd targets show pi5", "pi5-30fps"),
        ("edgekd bench a.onnx --device this", "this-computer"),
        ("edgekd bench a.onnx --backend lit", "litert/xnnpack"),
        ("edgekd losses k", "kd"),
    ],
)
def test_commands_options_and_names_complete(
    words: str, among: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = offered(words, monkeypatch, capfd)
    assert among in found
    assert all(name.startswith(words.split(" ")[-1]) for name in found)


def test_runs_complete(tmp_path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    (tmp_path / "runs" / "week" / "two").mkdir(parents=True)
    (tmp_path / "runs" / "week" / "two" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert sorted(offered("edgekd report ru", monkeypatch, capfd)) == ["ru", "runs/one", "runs/week/two"]


@pytest.mark.parametrize(
    "words",
    [
        "edgekd report elsewh",
        "edgekd export my_mo",
        "edgekd search p.yaml --target ./mine",
        "edgekd doctor --device ./my",
    ],
)
def test_paths_are_completed_by_the_shell_where_names_are(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPLETION, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert main([]) == 0
    assert f"file,{words.split(' ')[-1]}" in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_script(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main"], env={COMPLETION: f"{shell}_source", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "_edgekd_completion" in done.stdout
