"""What a person may name as a model, and what is refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import ConfigurationError, EdgeKDError, UsageError
from edgekd.exporting.model_argument import given_model
from edgekd.exporting.naming import is_model, shapes_of
from edgekd.students.own import classes_of
from edgekd.tasks._protocol import InputSpec


def test_a_function_is_found_in_its_folder(folder, named):
    notices = []
    given = given_model(f"{named}:build", None, notices.append)
    assert given.called == "build"
    assert len(notices) == 1  # whose code runs
    assert classes_of(given.module(print), InputSpec(shape=(3, 8, 8)), given.called) == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("w.pt", "holds weights, and no model"),
        ("m.tflite", "is exported already"),
        ("nothing", "name a function"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_give(folder, name, said):
    with pytest.raises(UsageError) as caught:
        given_model(name, None)
    assert said in str(caught.value)


def test_a_missing_file_is_named(folder, named):
    with pytest.raises(ConfigurationError, match="no such file"):
        given_model(f"{named}:build", Path("w.pt"))
    with pytest.raises(ConfigurationError, match="no such file"):
        given_model("m.pt2", None)


@pytest.mark.parametrize(
    ("function", "shape", "said"),
    [
        ("two", (3, 8, 8), r"takes 2 inputs \(a, b\)"),
        ("tokens", (3, 8, 8), r"whole numbers \(tokens\)"),
        ("maps", (3, 8, 8), r"returns \(2, 4, 6, 6\) for two images"),
        ("build", (1, 16000), "can.t take two signals"),
        ("build", (1, 8, 8), "can't take two images"),
    ],
)
def test_a_model_that_is_not_of_one_image_is_refused(folder, named, function, shape, said):
    module = given_model(f"{named}:{function}", None).module(print)
    with pytest.raises(ConfigurationError, match=said):
        classes_of(module, InputSpec(shape=shape), function)


def test_shapes_are_read():
    assert shapes_of("3x224x224") == shapes_of("1x3x224x224") == ((3, 224, 224),)
    assert shapes_of("1x16000") == ((1, 16000),)
    for text in ("1x2x3x8x8", "224", "2x3x8x8", "3xx8", "3x0x8", "axbxc"):
        with pytest.raises(EdgeKDError, match="--input"):
            shapes_of(text)
    assert is_model("my.py:build")
    assert is_model("my.pt2")
    assert not is_model("my.tflite")


class Answering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = self.stem(x)
        return {"logits": self.head((y * self.scale).mean((2, 3))), "maps": y}


@pytest.mark.slow
@pytest.mark.parametrize("free", [False, True])
def test_a_program_is_taken_apart_into_its_layers(tmp_path, free):
    torch.manual_seed(0)
    model, images = Answering().eval(), torch.randn(2, 3, 8, 8)
    model.stem[1].running_mean.normal_()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if free else None
    torch.export.save(torch.export.export(model, (images[: 1 + free],), dynamic_shapes=shapes), tmp_path / "m.pt2")
    given = given_model("m.pt2", None, folder=tmp_path)
    module = given.module(print)
    assert given.shape == (3, 8, 8)
    assert torch.equal(module(images), model(images)["logits"])
    assert type(module.get_submodule("stem.1")) is nn.BatchNorm2d
    assert set(module.state_dict()) == set(model.state_dict())


@pytest.mark.slow
def test_a_program_exported_while_training_is_refused(tmp_path):
    torch.export.save(torch.export.export(Answering().train(), (torch.zeros(2, 3, 8, 8),)), tmp_path / "m.pt2")
    with pytest.raises(ConfigurationError, match="while training"):
        given_model("m.pt2", None, folder=tmp_path).module(print)
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "m.pt2").read_bytes()[:300])
    with pytest.raises(ConfigurationError, match=r"no \.pt2 file"):
        given_model("cut.pt2", None, folder=tmp_path)


class Computed(nn.Module):
    """A BatchNorm whose weight and bias are computed, a region without gradients, a bias that is added outside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5, bias=False)
        self.bias = nn.Parameter(torch.rand(5))

    def forward(self, x):
        with torch.no_grad():
            y = self.conv(x)
        stats = (self.norm.running_mean, self.norm.running_var)
        y = nn.functional.batch_norm(y, *stats, self.norm.weight.exp(), self.norm.bias + 1)
        return self.head(y.mean((2, 3))) + self.bias


@pytest.mark.slow
def test_what_a_layer_can_not_hold_stays_a_call(tmp_path):
    torch.manual_seed(0)
    model, images = Computed().eval(), torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(model, (images[:1],)), tmp_path / "m.pt2")
    found = given_model("m.pt2", None, folder=tmp_path).module(print)
    torch.testing.assert_close(found(images), model(images))


@pytest.mark.slow
def test_a_program_that_answers_differently_once_taken_apart_is_refused(tmp_path, monkeypatch):
    torch.export.save(torch.export.export(Answering().eval(), (torch.zeros(2, 3, 8, 8),)), tmp_path / "m.pt2")
    monkeypatch.setattr("edgekd.students.program._filled", lambda layer, **_: layer)
    with pytest.raises(ConfigurationError, match="has other outputs after conversion"):
        given_model("m.pt2", None, folder=tmp_path).module(print)


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("data/sample_inputs/model.pt", "pickled objects in data/sample_inputs/model.pt"),
        ("data/weights/model.pt", "pickled objects in data/weights/model.pt"),
        ("data/constants/model.pt", "pickled objects in data/constants/model.pt"),
        ("data/constants/opaque_obj_0", "pickled objects in opaque_obj_0"),
        ("data/constants/custom_obj_0", "pickled objects in custom_obj_0"),
        ("data/weights/weight_0", "pickled objects in weight_0"),
        ("data/aotinductor/model/a.so", "a compiled library in data/aotinductor/model/a.so"),
        ("serialized_state_dict.pt", "pickled objects in serialized_state_dict.pt"),
    ],
)
def test_no_part_of_a_program_is_unpickled(tmp_path, part, said):
    torch.export.save(torch.export.export(Answering().eval(), (torch.zeros(2, 3, 8, 8),)), tmp_path / "whole.pt2")
    evil, lists = io.BytesIO(), {"data/weights": "data/weights/model_weights_config.json"}
    torch.save((Evil(tmp_path / "ran"),), evil)
    listing = lists.get(str(Path(part).parent), "data/constants/model_constants_config.json")
    parts = {}
    with zipfile.ZipFile(tmp_path / "whole.pt2") as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    if "_obj_" in part or part.endswith("weight_0"):
        listed = json.loads(parts[listing])
        entry = {"path_name": Path(part).name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        parts[listing] = json.dumps({"config": {**listed["config"], "c": entry}}).encode()
    parts[part] = evil.getvalue()
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"m/{name}", data)
    with pytest.raises(ConfigurationError, match=f"holds {said}: reading it would run code"):
        given_model("m.pt2", None, folder=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_program_of_half_precision_is_cast(tmp_path):
    torch.manual_seed(0)
    model, images = Answering().eval().half(), torch.randn(1, 3, 8, 8)
    torch.export.save(torch.export.export(model, (images.half(),)), tmp_path / "m.pt2")
    said = list[str]()
    module = given_model("m.pt2", None, folder=tmp_path).module(said.append)
    assert "float16: cast to float32" in said[0]
    assert torch.allclose(module(images), model.float()(images)["logits"], atol=1e-5)
