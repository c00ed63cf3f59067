"""The images that a model is calibrated and scored on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.errors import ConfigurationError, UsageError
from edgekd.events import SilentEvents
from edgekd.exporting.data import task_for
from edgekd.exporting.model_argument import given_model
from edgekd.tasks.splits import content_keys


class Heard(SilentEvents):
    def __init__(self) -> None:
        self.steps = set[str]()

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.steps.add(stage)


@pytest.fixture
def module(folder, named):
    return given_model(f"{named}:build", None).module(print)


def test_images_without_labels_are_scored_by_agreement(module, folder, images):
    np.savez(folder / "d.npz", images=images)
    task = task_for(module, "build", None, folder / "d.npz", (), ())
    assert task.kind == task.spec.metric.name == "agreement"
    assert task.spec.head.classes == 4
    assert len(task.split("calibration")) == len(task.split("test")) == 20
    calibrating, scoring = (content_keys(task.split(name).inputs) for name in ("calibration", "test"))
    assert not np.isin(calibrating, scoring).any()
    logits = np.eye(4, dtype=np.float32)[task.split("test").labels]
    assert task.score(logits, task.split("test").labels).value == 1.0


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("x_test", "y_test")])
def test_images_with_labels_are_scored_by_them(module, folder, images, names):
    labels = np.arange(40) % 3
    np.savez(folder / "d.npz", **{names[0]: images, names[1]: labels})
    task = task_for(module, "build", None, folder / "d.npz", (127.5,), (60.0,))
    assert task.kind == "top1"
    assert task.spec.head.classes == 4  # the model's: no image need be of each
    assert task.spec.input.mean == (127.5,)


def test_arrays_that_are_split_stay_so(module, folder, images):
    labels = np.arange(40) % 4
    np.savez(folder / "d.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    task = task_for(module, "build", None, folder / "d.npz", (), ())
    assert len(task.split("test")) == 10
    assert len(task.spec.input.mean) == 3  # of each channel


def test_loose_pictures_are_brought_to_the_models_size(module, folder, images):
    from PIL import Image

    (folder / "pictures").mkdir()
    for number, image in enumerate(images[:6]):
        Image.fromarray(image).resize((20, 12)).save(folder / "pictures" / f"{number}.png")
    task = task_for(module, "build", (3, 8, 8), folder / "pictures", (), ())
    assert task.spec.input.shape == (3, 8, 8)
    assert task.kind == "agreement"
    with pytest.raises(UsageError, match="--input"):
        task_for(module, "build", None, folder / "pictures", (), ())


def test_loose_pictures_beside_folders_are_refused(module, folder, images):
    from PIL import Image

    for place in ("pictures", "pictures/a", "pictures/b"):
        (folder / place).mkdir()
        Image.fromarray(images[0]).save(folder / place / "0.png")
    with pytest.raises(ConfigurationError, match="are the folders classes or not"):
        task_for(module, "build", (3, 8, 8), folder / "pictures", (), ())


def test_an_input_that_contradicts_the_images_is_usage(module, folder, images):
    labels = np.arange(40) % 4
    np.savez(folder / "d.npz", x=images)
    np.savez(folder / "e.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    for name in ("d.npz", "e.npz"):
        assert task_for(module, "build", (3, 8, 8), folder / name, (), ()).spec.input.shape == (3, 8, 8)
        with pytest.raises(UsageError, match="are 3x8x8, and --input or the model's file says 3x16x16"):
            task_for(module, "build", (3, 16, 16), folder / name, (), ())


def test_a_normalisation_without_images_is_a_part_of_the_file(module):
    task = task_for(module, "build", (3, 8, 8), None, (100.0, 110.0, 120.0), (50.0,))
    assert task.spec.input.mean == (100.0, 110.0, 120.0)
    assert task.spec.input.raw_dtype == task.split("test").inputs.dtype == np.uint8
    with pytest.raises(UsageError, match="--mean has 2 values, and samples of 3 channels"):
        task_for(module, "build", (3, 8, 8), None, (100.0, 110.0), (50.0,))
    with pytest.raises(UsageError, match="--std 0: a value above 0"):
        task_for(module, "build", (3, 8, 8), None, (100.0,), (0.0,))


@pytest.mark.parametrize("listed", [False, True])
def test_pictures_with_classes_are_the_task_of_such_pictures(module, folder, images, listed, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    lines = ["path,label"]
    for number, image in enumerate(images):
        place = folder / "pictures" / "abc"[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((20, 12)).save(place)
        lines.append(f"pictures/{place.parent.name}/{place.name},{place.parent.name}")
    (folder / "d.csv").write_text("\n".join(lines) + "\n")
    heard = Heard()
    task = task_for(module, "build", (3, 8, 8), folder / ("d.csv" if listed else "pictures"), (), (), heard)
    assert task.kind == "top1"
    assert heard.steps == {"pictures"}  # while they are decoded
    assert "0 is a, 1 is b, 2 is c" in task.notes[0]
    assert "have 3 classes and `build` has 4" in task.notes[0]
    assert task.spec.head.classes == 4
    assert task.split("test").inputs.shape[1:] == (3, 8, 8)


def test_without_images_values_are_made_up_and_nothing_is_scored(module):
    task = task_for(module, "build", (3, 8, 8), None, (), ())
    assert task.kind == ""
    assert not len(task.split("calibration"))
    assert len(task.split("validation")) == 16
    with pytest.raises(UsageError, match="--input 3x224x224"):
        task_for(module, "build", None, None, (), ())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros(3)}, "has the arrays a"),
        (
            {"x": np.zeros((4, 3, 8, 8), np.uint8), "y": np.array([0, 1, 2, 9])},
            "a label of d is 9|a label of d.npz is 9",
        ),
        ({"x": np.zeros((1, 3, 8, 8), np.uint8) + 1}, "has 1 sample"),
    ],
)
def test_images_that_do_not_fit_are_refused(module, folder, arrays, said):
    np.savez(folder / "d.npz", **arrays)
    with pytest.raises(ConfigurationError, match=said):
        task_for(module, "build", None, folder / "d.npz", (0.0,), (1.0,))


def test_half_a_normalisation_and_other_files_are_usage(module, folder):
    (folder / "d.txt").touch()
    with pytest.raises(UsageError, match="belong together"):
        task_for(module, "build", None, folder / "d.txt", (1.0,), ())
    with pytest.raises(UsageError, match="npz, a folder"):
        task_for(module, "build", None, folder / "d.txt", (), ())


@pytest.mark.parametrize("shape", [(2, 30), None])
@pytest.mark.parametrize("split", [True, False])
def test_arrays_are_signals_where_the_model_takes_signals(folder, split, shape):
    from torch import nn

    signals, labels = np.random.default_rng(0).standard_normal((40, 2, 30)).astype(np.float32), np.arange(40) % 3
    model = nn.Sequential(nn.Conv1d(2, 3, 5), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    parts = {"x_train": signals[:30], "y_train": labels[:30], "x_test": signals[30:], "y_test": labels[30:]}
    np.savez(folder / "d.npz", **(parts if split else {"x": signals, "y": labels}))
    task = task_for(model, "build", shape, folder / "d.npz", (), ())
    given = task.spec.input
    assert (given.name, given.shape, given.raw_dtype) == ("signal", (2, 30), "float32")
    assert split or task.where == "d.npz: 20 signals calibrate, 20 score"
    with pytest.raises(ConfigurationError, match=r"can't take two images \(1, 2, 30\)"):
        task_for(nn.Sequential(nn.Conv1d(4, 3, 5)), "build", None, folder / "d.npz", (), ())


def test_grey_images_stay_images_where_the_model_takes_them(folder):
    from torch import nn

    np.savez(folder / "d.npz", x=np.zeros((40, 6, 30), np.uint8), y=np.arange(40) % 3)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    given = task_for(model, "build", None, folder / "d.npz", (0.0,), (1.0,)).spec.input
    assert (given.name, given.shape) == ("image", (1, 6, 30))


def test_a_made_up_signal_is_called_one(folder):
    from torch import nn

    model = nn.Sequential(nn.Conv1d(2, 3, 5), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    assert task_for(model, "build", (2, 30), None, (), ()).spec.input.name == "signal"


def test_hidden_files_are_no_pictures(module, folder, images):
    from PIL import Image

    (folder / "pictures").mkdir()
    for number, image in enumerate(images[:6]):
        Image.fromarray(image).save(folder / "pictures" / f"{number}.png")
    (folder / "pictures" / "._0.png").write_bytes(b"what macOS keeps of a file")
    (folder / "pictures" / "__pycache__").mkdir()
    assert task_for(module, "build", (3, 8, 8), folder / "pictures", (), ()).kind == "agreement"
    with pytest.raises(UsageError, match="holds pictures"):
        task_for(module, "build", (1, 8000), folder / "pictures", (), ())


@pytest.mark.parametrize("last", [False, True])
def test_a_known_shape_says_which_axis_has_the_channels(folder, last):
    network = nn.Sequential(nn.Conv2d(13, 4, 3), nn.Flatten(), nn.LazyLinear(4))
    network(torch.zeros(1, 13, 8, 8))
    inputs = np.random.default_rng(0).random((40, 13, 8, 8)).astype(np.float32)
    np.savez(folder / "d.npz", images=np.moveaxis(inputs, 1, -1) if last else inputs)
    task = task_for(network.eval(), "build", (13, 8, 8), folder / "d.npz", (), ())
    assert task.spec.input.shape == (13, 8, 8)
