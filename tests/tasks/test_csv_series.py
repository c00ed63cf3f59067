"""The task csv-series: columns become windows, those of a series stay together, and wrong lines are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks.signals.csv_series import CsvSeries
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


def test_classes_have_the_order_of_labels(tmp_path):
    path = write_waves(tmp_path / "waves.csv")
    spec, turned = made(path).spec, made(path, labels=["slow", "fast"])
    assert (spec.head.labels, turned.spec.head.labels) == (("fast", "slow"), ("slow", "fast"))
    assert np.array_equal(np.sort(made(path).split("test").labels), np.sort(1 - turned.split("test").labels))
    with pytest.raises(ConfigurationError, match="has the class `fast`, which `labels` doesn't name"):
        _ = made(path, labels=["slow"]).spec


def test_windows_of_a_series_are_in_one_split(tmp_path):
    task = made(write_waves(tmp_path / "waves.csv"), length=16, step=8)
    names, beginnings, followed = ("train", "validation", "test"), dict[bytes, str](), 0
    for name in names:
        beginnings |= {sample[:, :8].tobytes(): name for sample in task.split(name).inputs}
    for name in names:
        for sample in task.split(name).inputs:
            behind = beginnings.get(sample[:, 8:].tobytes())  # the window behind it, unless it is the last
            followed += behind is not None
            assert behind in (None, name)
    assert followed == 24 * 3


def test_calibration_takes_some_of_each_series(tmp_path):
    task = made(write_waves(tmp_path / "waves.csv"), length=16, step=8, calibration=16)
    keys = task._ready().parts["train"].take(np.arange(len(task.split("train")))).keys
    rows = {sample.tobytes(): key for sample, key in zip(task.split("train").inputs, keys, strict=True)}
    assert len({rows[sample.tobytes()] for sample in task.split("calibration").inputs}) > 6


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
        ("0,r0,1e39,1,slow", r"`x` is `1e39`"),
        ("0,r0,1,2,1,slow", r"has more fields than the first line"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    path = write_waves(tmp_path / "waves.csv")
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(ConfigurationError, match=rf"waves\.csv:962.*{said}") as caught:
        _ = made(path).spec
    assert len(caught.value.problems) == 1


def test_what_does_not_fit_is_reported(tmp_path):
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


def test_a_class_that_is_lost_is_named(tmp_path):
    path = tmp_path / "log.csv"

    def read(classes: str, more: str = "") -> CsvSeries:
        rows = [f"{number + at / 7},{name}" for number, name in enumerate(classes) for at in range(30)]
        path.write_text("\n".join(["x,label", *rows]) + more)
        return CsvSeries.model_validate({"file": path, "values": ["x"], "length": 5})

    with pytest.raises(ConfigurationError, match="has no series for training"):
        _ = read("abcdefgh").spec
    with pytest.raises(ConfigurationError, match="of class `d` no series has 5 steps"):
        _ = read("ab" * 9 + "c", "\n1,d").spec


def test_windows_alike_are_not_in_two_splits(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "waves.csv"
    tail = rng.random(8)
    rows = [
        f"s{series},{value},{'ab'[series % 2]}"
        for series in range(20)
        for value in [*rng.random(8), *(tail + series % 2)]
    ]
    path.write_text("\n".join(["run,x,label", *rows]))
    task = CsvSeries.model_validate({"file": path, "values": ["x"], "series": "run", "length": 8})
    contents = [{sample.tobytes() for sample in task.split(name).inputs} for name in ("train", "validation", "test")]
    assert contents[0].isdisjoint(contents[1] | contents[2])


def test_a_column_without_a_name_and_a_new_part_within_a_run_are_no_matter(tmp_path):
    path, rng = tmp_path / "frame.csv", np.random.default_rng(0)
    rows = [
        f"{at},{rng.random()},{name},{part}"
        for part in ("train",) * 6 + ("test", "val")
        for name in "aabb"
        for at in range(4)
    ]
    path.write_text("\n".join([",x,label,part", *rows]))
    task = CsvSeries.model_validate({"file": path, "values": ["x"], "split": "part", "length": 4})
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [24, 4, 4]
    assert CsvSeries.model_validate({"file": path, "values": ["x"], "length": 4}).spec.input.shape == (1, 4)


@pytest.mark.parametrize(
    ("head", "said"), [("x;label", "columns are separated by `;`"), ("x,x,label", "two columns are called `x`")]
)
def test_what_is_no_such_table_is_reported(tmp_path, head, said):
    (tmp_path / "a.csv").write_text(f"{head}\n1,2,a\n")
    with pytest.raises(ConfigurationError, match=said):
        _ = CsvSeries.model_validate({"file": tmp_path / "a.csv", "values": ["x"]}).spec


def test_what_was_left_out_is_reported(tmp_path):
    path = write_waves(tmp_path / "waves.csv")
    path.write_text(path.read_text() + "\n0,r99,1,1,fast")
    said = made(path, length=16).prepare(lambda *_: None, lambda: False)
    assert said == "48 windows of 2 classes from 25 series; 1 shorter than 16 steps left out"
