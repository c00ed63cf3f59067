"""The task csv-series: columns become windows, those of a series stay together, and wrong lines are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks.csv_series import CsvSeries
from edgekd.testing.contracts.task import TaskContract
from tests.tasks.tones import write_waves


def made(path: Path, **options: object) -> CsvSeries:
    return CsvSeries.model_validate({"file": path, "values": ["x", "y"], "series": "run", **options})


class TestCsvSeries(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        path = write_waves(tmp_path / "waves.csv")
        return lambda: made(path, length=16, step=8, calibration=8)


def test_a_series_is_a_sample_or_cut_into_windows(tmp_path):
    path = write_waves(tmp_path / "waves.csv")
    whole, cut = made(path), made(path, length=16, step=8)
    assert whole.spec.input.shape == (2, 40)
    assert (whole.spec.kind, whole.spec.input.name, whole.spec.head.labels) == (
        "series-classification", "signal", ("fast", "slow"),
    )  # fmt: skip
    assert cut.spec.input.shape == (2, 16)
    assert sum(len(cut.split(name)) for name in ("train", "validation", "test")) == 24 * 4
    assert len(cut.spec.input.mean) == 2
    assert cut.spec.input.std[1] > 5 * cut.spec.input.std[0]


def test_windows_of_a_series_are_in_one_split(tmp_path):
    task = made(write_waves(tmp_path / "waves.csv"), length=16, step=8)
    beginnings = {}
    for name in ("train", "validation", "test"):
        for sample in task.split(name).inputs:
            beginnings.setdefault(sample[1, :4].tobytes(), set()).add(name)
    overlapping = [task.split(name).inputs[:, 1, 8:12] for name in ("train", "validation", "test")]
    for name, inner in zip(("train", "validation", "test"), overlapping, strict=True):
        for sample in inner:  # the beginning of the window behind it
            assert beginnings.get(sample.tobytes(), {name}) == {name}


def test_parts_are_those_of_the_column(tmp_path):
    task = made(write_waves(tmp_path / "waves.csv", split=True), split="split")
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [16, 4, 4]


def test_without_series_runs_of_one_label_are_series(tmp_path):
    path = tmp_path / "log.csv"
    rng = np.random.default_rng(0)
    rows = [f"{rng.random():.4f},{name}" for name in ("a", "b") * 12 for _ in range(10)]
    path.write_text("\n".join(["x,label", *rows]))
    task = CsvSeries.model_validate({"file": path, "values": ["x"]})
    assert task.spec.input.shape == (1, 10)
    assert sum(len(task.split(name)) for name in ("train", "validation", "test")) == 24


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0,r0,nope,1,slow", r"`x` is `nope`"),
        ("0,r0,nan,1,slow", r"`x` is `nan`"),
        ("0,r0,1,,slow", r"`y` is ``"),
        ("0,r0,1,1,", r"`label` is empty"),
        ("0,,1,1,slow", r"`run` is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    path = write_waves(tmp_path / "waves.csv")
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(ConfigurationError, match=rf"waves\.csv:962.*{said}") as caught:
        _ = made(path).spec
    assert len(caught.value.problems) == 1


def test_what_does_not_fit_is_told(tmp_path):
    path = write_waves(tmp_path / "waves.csv")
    with pytest.raises(ConfigurationError, match="there is no column `z`; the columns are time, run, x, y, label"):
        _ = made(path, values=["z"]).spec
    with pytest.raises(ConfigurationError, match="no series has 99 steps with one label"):
        _ = made(path, length=99).spec
    path.write_text(path.read_text() + "\n41,r0,1,1,fast")
    with pytest.raises(ConfigurationError, match="has 40 steps and `r0` 41"):
        _ = made(path).spec
    with pytest.raises(ValueError, match="`step` needs `length`"):
        made(path, step=4)
    with pytest.raises(ValueError, match="the column `x` is named twice"):
        made(path, values=["x", "x"])
