"""One student, several losses at once, certified; what each loss did is reported where it is asked for."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.journey

LOSSES = "{loss: {kd: {temperature: {from: 6, to: 2}, weight: 0.5}, fitnet: {}}, augment: {rotate: 5},"


@pytest.fixture
def single(edgekd):
    edgekd.change("project.yaml", "{width: [8, 16], depth: [1, 1]}", "{widths: [8, 8], depths: [1, 1]}")
    edgekd.change("project.yaml", "{loss: {kd: {temperature: 4, weight: 0.5}},", LOSSES)
    return edgekd


def test_inner_activations_teach_and_each_loss_is_reported(single):
    done = single("distill", "project.yaml", "--run", "run", "--explain")
    assert done.returncode == 0, done.stderr
    assert "the teacher answers" in done.stderr
    for word in ("share of the gradient", "fitnet", "kd", "ce", "agrees with the teacher on", "calibration error"):
        assert word in done.stdout
    lines = done.stdout.splitlines()
    explained = lines[next(at for at, line in enumerate(lines) if "share of the gradient" in line) :]
    assert max(len(line) for line in explained if not line.startswith(("bundle", "digest", "report"))) <= 80
    explanation = json.loads((single.folder / "run" / "explanation.json").read_text())
    assert sum(term["last"] for term in explanation["terms"]) == pytest.approx(1.0)
    assert explanation["following"]["samples"] == sum(each["samples"] for each in explanation["following"]["classes"])
    page = (single.folder / "run" / "report.html").read_text()
    assert "What each term of the loss pulled with" in page
    again = single("distill", "project.yaml", "--run", "run", "--format", "json")
    assert json.loads(again.stdout)["explanation"] is None  # not asked for
    assert single("verify", "run/bundle").returncode == 0


def test_what_a_loss_needs_is_reported_before_training(single):
    single.change("project.yaml", "fitnet: {}", "fitnet: {points: [[blocks.0, blocks.9]]}")
    done = single("distill", "project.yaml", "--run", "run")
    assert done.returncode == 3
    assert "no point of the teacher `blocks.9`" in done.stderr
    single.change("project.yaml", "fitnet: {points: [[blocks.0, blocks.9]]}", "fitnet: {wait: 2}")
    done = single("distill", "project.yaml", "--run", "run")
    assert done.returncode == 3
    assert "did you mean `weight`?" in done.stderr
    assert "project.yaml:7" in done.stderr


def test_losses_are_listed_with_what_they_need(edgekd):
    done = edgekd("losses")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "needs a teacher's network" in done.stdout
    one = json.loads(edgekd("losses", "crd", "--format", "json").stdout)
    assert one["losses"][0]["options"]["temperature"] == 0.07
    unknown = edgekd("losses", "crdd")
    assert unknown.returncode == 3
    assert "did you mean `crd`?" in unknown.stderr
