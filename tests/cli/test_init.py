from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.main import main
from edgekd.project import read_project

MODEL = "from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_first_project_is_valid_as_it_is(tmp_path: Path) -> None:
    assert main(["init", "-q"]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.target.name == "here"
    assert {limit.metric for limit in project.target.limits} == {"latency.p95", "size.file"}


def test_nothing_is_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "project.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "project.yaml").read_text() == "mine"
    assert not (tmp_path / "here.yaml").exists()
    assert main(["init", "--force"]) == 0
    assert (tmp_path / "project.yaml").read_text() != "mine"


def test_a_persons_own_model_is_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    (tmp_path / "my.py").write_text(MODEL)
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "my weights.safetensors")
    images, labels = np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    asked = ["init", "--model", "my.py:build", "--weights", "my weights.safetensors", "--data", "x.npz"]
    assert main(asked) == 0
    assert "edgekd compress project.yaml" in capsys.readouterr().out
    assert read_project(tmp_path / "project.yaml").family.name == "pruned"


def test_what_is_not_there_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.py").write_text(MODEL)
    assert main(["init", "--model", "my.py:build"]) == 0
    said = capsys.readouterr().out
    assert "put your weights at model.safetensors" in said
    assert "put your data at images.npz" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "my.py:nobuild"], "has no function `nobuild`"),
        (["--model", "no.py:build"], "no module `no`"),
        (["--model", "my.py:build", "--weights", "w.pt"], "w.pt"),
        (["--model", "my.py:build", "--weights", "whole.pt"], "state_dict"),
    ],
)
def test_a_model_that_can_not_work_is_refused_at_once(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    (tmp_path / "my.py").write_text(MODEL)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    assert main(["init", *options]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "project.yaml").exists()


@pytest.mark.parametrize("options", [["--model", "my.py"], ["--data", "x.npz"], ["--weights", "w"]])
def test_options_that_do_not_fit_are_usage(options: list[str]) -> None:
    assert main(["init", *options]) == 2
