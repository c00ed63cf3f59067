"""timm teachers: with the real package where it can be imported (it needs a torchvision that fits the torch here)."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from edgekd.errors import ConfigurationError, MissingError
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.teachers._protocol import OpenTeacher
from edgekd.teachers.binding import bind
from edgekd.teachers.timm import TimmTeacher
from edgekd.testing.contracts.teacher import TeacherContract

try:
    import timm

    REASON = ""
except (ImportError, RuntimeError) as error:  # the second without a fitting torchvision
    timm: Any = None
    REASON = f"timm can't be imported: {error}"
with_timm = pytest.mark.skipif(timm is None, reason=REASON)


@pytest.fixture
def spec() -> TaskSpec:
    return TaskSpec(
        name="small",
        input=InputSpec(shape=(3, 32, 32), mean=(120.0,), std=(60.0,)),
        head=HeadSpec(classes=4),
        data="0" * 64,
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=4).state_dict(), path)
    return path


@with_timm
class TestTimm(TeacherContract):
    @pytest.fixture
    def spec(self, spec):
        return spec

    @pytest.fixture
    def make_teacher(self, weights):
        return lambda: TimmTeacher(model="resnet10t", weights=weights)


@with_timm
def test_answers_are_the_models_on_its_own_normalisation(weights, spec):
    teacher = bind(TimmTeacher(model="resnet10t", weights=weights), spec)
    batch = torch.randint(0, 256, (3, 3, 32, 32)).float()
    config = teacher.network().pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = teacher.network()((batch / 255 - mean) / std)
    torch.testing.assert_close(teacher.logits(batch), expected, atol=1e-4, rtol=1e-4)
    assert isinstance(teacher, OpenTeacher)


@with_timm
def test_a_name_it_does_not_have_is_reported(weights, spec):
    with pytest.raises(ConfigurationError, match="did you mean `resnet10t`"):
        bind(TimmTeacher(model="resnet10tt", weights=weights), spec)


@with_timm
def test_weights_of_another_model_are_reported(weights, spec):
    with pytest.raises(ConfigurationError, match="lacks"):
        bind(TimmTeacher(model="resnet34", weights=weights), spec)


def test_one_source_of_weights_is_asked_for(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    for options in ({}, {"weights": "a.safetensors", "download": True}):
        with pytest.raises(ValidationError, match="one of the two"):
            TimmTeacher.model_validate({"model": "resnet18", **options}, context={"folder": tmp_path})


def test_the_package_that_is_missing_is_named(tmp_path, spec, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(b"")
    teacher = TimmTeacher(model="resnet18", weights=tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match=r"needs the package `timm`(.|\n)*edgekd\[timm\]"):
        bind(teacher, spec)


def test_a_package_that_does_not_fit_the_torch_here_is_reported(tmp_path, spec, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingError, match="can't be imported: operator torchvision::nms does not exist"):
        bind(TimmTeacher(model="resnet18", weights=tmp_path / "a.safetensors"), spec)
