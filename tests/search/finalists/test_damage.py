"""What rests on a damaged student is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.ir.space import Arch
from edgekd.search.finalists.damage import forget_damaged_rounds
from edgekd.store.records import RoundRecord
from edgekd.students._protocol import Student
from edgekd.students.student import save_student


def test_a_round_whose_student_is_damaged_is_trained_again_and_later_ones_are_forgotten(
    make_lab: Any, student: Student
) -> None:
    run, arch = make_lab().open(), Arch.of({"width1": 8})
    keys = ["a" * 64, "b" * 64, "c" * 64]
    for number, key in enumerate(keys):
        save_student(student, run.students / key)
        run.write(RoundRecord(number=number, before=None, options=(), arch=arch, student=key, recovered="short"))
    assert forget_damaged_rounds(run) == ""
    assert len(run.rounds()) == 3
    weights: Path = run.students / keys[1] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert forget_damaged_rounds(run) == f"students/{keys[1]}"
    kept, again = run.rounds()
    assert (kept.student, again.student, again.arch) == (keys[0], None, arch)
