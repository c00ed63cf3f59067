"""Keras teachers: with the real package where the extra `keras` is installed."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, MissingError
from edgekd.teachers.binding import bind
from edgekd.teachers.keras import KerasTeacher, _keras
from edgekd.testing.contracts.teacher import TeacherContract


@pytest.fixture(scope="session")
def keras():
    try:
        return _keras()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def model(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


@pytest.fixture(scope="session")
def files(tmp_path_factory, keras, model):
    folder = tmp_path_factory.mktemp("keras")
    model.save(folder / "small.keras")
    model.save(folder / "small.h5")
    layers = keras.layers
    first = keras.Sequential([layers.Input((3, 8, 8)), layers.Flatten(), layers.Dense(4)])
    first.save(folder / "first.keras")
    keras.Sequential([*model.layers, layers.Softmax()]).save(folder / "soft.keras")
    code = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2), layers.Flatten(), layers.Dense(4)]
    )
    code.save(folder / "code.keras")
    code.save(folder / "code.h5")
    return folder


@pytest.fixture
def batch():
    return torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class TestKeras(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, files):
        return lambda: KerasTeacher(file=files / "small.keras")


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_answers_are_the_models(files, spec, model, batch, name):
    teacher = bind(KerasTeacher(file=files / name), spec)
    fed = ((batch.float() - 120) / 60).permute(0, 2, 3, 1).numpy()
    expected = model.predict(fed, verbose=0)
    np.testing.assert_allclose(teacher.logits(batch).numpy(), expected, atol=1e-4, rtol=1e-4)
    assert bind(KerasTeacher(file=files / name, input="raw"), spec).digest() != teacher.digest()


def test_channels_first_is_fed_as_it_lies(files, spec, batch):
    assert bind(KerasTeacher(file=files / "first.keras", layout="nchw"), spec).logits(batch).shape == (5, 4)
    with pytest.raises(ConfigurationError, match="write `layout: nchw`"):
        bind(KerasTeacher(file=files / "first.keras"), spec)


def test_probabilities_are_made_logits_where_it_is_written(files, spec, batch):
    with pytest.raises(ConfigurationError, match="answers: probabilities"):
        bind(KerasTeacher(file=files / "soft.keras"), spec)
    plain = bind(KerasTeacher(file=files / "small.keras"), spec).logits(batch)
    found = bind(KerasTeacher(file=files / "soft.keras", answers="probabilities"), spec).logits(batch)
    torch.testing.assert_close(found.softmax(1), plain.softmax(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["code.keras", "code.h5"])
def test_a_file_with_code_in_it_is_not_run(files, spec, name):
    with pytest.raises(ConfigurationError, match="can't be loaded by Keras"):
        bind(KerasTeacher(file=files / name), spec)


def test_a_damaged_file_is_refused(keras, tmp_path, spec):
    (tmp_path / "a.keras").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="can't be loaded by Keras"):
        bind(KerasTeacher(file=tmp_path / "a.keras"), spec)


def test_other_files_are_refused_when_it_is_read(tmp_path):
    (tmp_path / "a.pb").write_bytes(b"")
    with pytest.raises(ValidationError, match="write model"):
        KerasTeacher(file=tmp_path / "a.pb")


def test_the_package_that_is_missing_is_named(tmp_path, spec, monkeypatch):
    (tmp_path / "a.keras").write_bytes(b"")
    before = os.environ.get("KERAS_BACKEND")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingError, match=r"edgekd\[keras\]"):
        bind(KerasTeacher(file=tmp_path / "a.keras"), spec)
    assert os.environ.get("KERAS_BACKEND") == before


def test_a_version_that_runs_code_from_files_is_refused(tmp_path, spec, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    (tmp_path / "keras.py").write_text("__version__ = '3.10.0'")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingError, match="does not read models safely"):
        bind(KerasTeacher(file=tmp_path / "a.h5"), spec)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
