from __future__ import annotations

import pytest

from edgekd.distill.losses.catalogue import LossEntry, known_losses


def test_all_of_them_and_each_alone_fit_a_terminal():
    every = known_losses()
    assert {"kd", "dkd", "fitnet", "ce"} <= {entry.name for entry in every.losses}
    for answer in (every, *(known_losses(entry.name) for entry in every.losses)):
        assert max(map(len, answer.lines())) <= 80
    needs = {entry.name: entry.needs for entry in every.losses}
    assert needs["kd"] == needs["dist"] == "a teacher's logits, of classes, labels or numbers"
    assert needs["dkd"] == needs["mlkd"] == "a teacher's logits, of classes alone"
    assert all(entry.paper and entry.needs and entry.use for entry in every.losses)


@pytest.mark.parametrize("name", ["short", "exactly-14-ltr", "a-strangers-loss-of-a-long-name"])
def test_a_name_and_its_paper_are_told_apart(name):
    paper = "Somebody 2026, " + "On very long titles of papers that go on and on, " * 3
    lines = LossEntry(name=name, paper=paper, needs="labels", use="", options={}).lines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[0] == name
    assert "Somebody 2026, On very" in " ".join(lines)
