"""A saved student comes back the same, in this process or another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd.errors import ConfigurationError
from edgekd.ir.encoding import Annotations, Encoding
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.fold import folded
from edgekd.students.resnet import ResNet
from edgekd.students.student import is_whole, load_student, new_student, save_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="tiny", input=InputSpec(shape=(1, 8, 8)), head=HeadSpec(classes=4), data="0" * 64)
ARCH = Arch.of({"width1": 8, "width2": 8, "depth1": 1, "depth2": 1})


def student(seed: int = 0) -> Student:
    return new_student(ResNet.model_validate({"space": {"width": [8, 16]}, "stages": 2}), ARCH, SPEC, seed)


def test_the_seed_decides_the_weights_and_nothing_else_changes() -> None:
    before = torch.random.get_rng_state()
    first, second, other = student(), student(), student(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.module.head.weight, second.module.head.weight)
    assert not torch.equal(first.module.head.weight, other.module.head.weight)


@pytest.mark.parametrize("fold", [False, True])
def test_loading_gives_back_what_was_saved(tmp_path: Path, fold: bool) -> None:
    original = folded(student()) if fold else student()
    notes = Annotations(activations={"input": Encoding(bits=8, scale=(0.1,), zero_point=(-3,))})
    original = original.but(annotations=notes)
    digest = save_student(original, tmp_path)
    loaded = load_student(tmp_path)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.module(x), original.module(x))
    assert loaded.annotations == notes
    assert loaded.options == original.options
    assert save_student(loaded, tmp_path / "again") == digest
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["student.json", "weights.safetensors"]


@pytest.mark.slow
def test_another_process_loads_it(tmp_path: Path) -> None:
    digest = save_student(student(), tmp_path / "a")
    code = (
        "import sys; from pathlib import Path; from edgekd.students.student import load_student, save_student;"
        "sys.stdout.write(save_student(load_student(Path(sys.argv[1])), Path(sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b")]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == digest


def test_the_digest_covers_the_weights(tmp_path: Path) -> None:
    assert save_student(student(0), tmp_path / "a") != save_student(student(1), tmp_path / "b")


def test_damage_is_noticed(tmp_path: Path) -> None:
    save_student(student(0), tmp_path / "a")
    save_student(student(1), tmp_path / "b")
    (tmp_path / "b" / "weights.safetensors").replace(tmp_path / "a" / "weights.safetensors")
    with pytest.raises(ConfigurationError, match="not the ones it was saved with"):
        load_student(tmp_path / "a")
    with pytest.raises(ConfigurationError, match="can't read"):
        load_student(tmp_path / "b")


def test_a_record_that_has_changed_is_an_error_and_not_built(tmp_path: Path) -> None:
    save_student(student(), tmp_path)
    path = tmp_path / "student.json"
    assert is_whole(tmp_path)
    path.write_text(path.read_text().replace('"width2"', '"width3"'))
    assert not is_whole(tmp_path)
    with pytest.raises(ConfigurationError, match="its content has changed since it was written"):
        load_student(tmp_path)
