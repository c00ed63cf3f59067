"""A person's own model and its weights."""

from __future__ import annotations

import contextlib
import copy
import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from edgekd.code_references import CodeReference
from edgekd.errors import ConfigurationError
from edgekd.students.weights import built_module, load_weights, read_weights, source_file

_number = itertools.count()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def written(model: nn.Module, path, prefix: str = ""):
    tensors = {prefix + name: value.detach() + 1 for name, value in model.state_dict().items() if "num_" not in name}
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    else:
        save_file(tensors, path)
    return path


def reference(folder, source: str) -> CodeReference:
    name = f"own_model_{next(_number)}"  # a module of one name is imported once a process
    (folder / f"{name}.py").write_text(source)
    return CodeReference.parse(f"{name}.py:build", folder)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_loaded(model, tmp_path, suffix, prefix):
    before = model[0].weight.clone()
    load_weights(model, written(model, tmp_path / f"w{suffix}", prefix))
    assert torch.equal(model[0].weight, before + 1)


@pytest.mark.parametrize(
    "kept",
    [
        lambda state: state,
        lambda state: {
            "epoch": 3,
            "model_state_dict": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        lambda state: {"net_g": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_weights_of_torch_save_are_loaded(model, tmp_path, kept, suffix):
    state = {name: value + 1 for name, value in model.state_dict().items()}
    torch.save(kept(state), tmp_path / f"w{suffix}")
    load_weights(model, tmp_path / f"w{suffix}")
    assert torch.equal(model[0].weight, state["0.weight"])


def test_code_in_a_file_of_torch_save_is_not_run(model, tmp_path):
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(ConfigurationError, match=r"more than tensors \(torch.nn.modules[^\n]*\n.*state_dict"):
        read_weights(tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigurationError, match="is list, and a state dict was expected"):
        read_weights(tmp_path / "list.pt")
    torch.save({"a": model.state_dict(), "b": model.state_dict()}, tmp_path / "two.pt")
    with pytest.raises(ConfigurationError, match="has `a`, `b`"):
        read_weights(tmp_path / "two.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "two.pt").read_bytes()[:300])
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_weights(tmp_path / "cut.pt")


def test_a_pointer_of_git_lfs_is_no_model(tmp_path):
    (tmp_path / "w.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ConfigurationError, match=r"w\.pt can't be read: "):
        read_weights(tmp_path / "w.pt")


def test_a_torchscript_archive_is_no_state_dict(model, tmp_path):
    torch.jit.trace(model.eval(), torch.zeros(1, 1, 8, 8)).save(tmp_path / "script.pt")
    with pytest.raises(ConfigurationError, match="TorchScript archive, no state dict"):
        read_weights(tmp_path / "script.pt")


def test_what_does_not_match_is_named(model, tmp_path):
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.Linear(5, 5))
    with pytest.raises(ConfigurationError) as caught:
        load_weights(model, written(other, tmp_path / "w.npz"))
    said = str(caught.value)
    assert "lacks `1.weight`" in said
    assert "has `4.weight`" in said
    assert "`3.weight` is (5, 144), and the model has (3, 144)" in said


def test_pickle_is_not_read(model, tmp_path):
    (tmp_path / "w.pkl").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="save_file"):
        read_weights(tmp_path / "w.pkl")
    np.savez(tmp_path / "w.npz", a=np.array([print], dtype=object))
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_refused(model, tmp_path, suffix):
    path = written(model, tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_weights(path)


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_refused_or_does_no_harm(tmp_path, save):
    path = tmp_path / "w.npz"
    save(path, weight=np.arange(40.0))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(ConfigurationError):
            read_weights(path)


def test_a_model_is_built_for_answering(tmp_path):
    found = built_module(reference(tmp_path, "from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"), None)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def build():\n    return 7\n", "returned int"),
        ("def build(width):\n    pass\n", "TypeError"),
        ("def build():\n    raise OSError('gone')\n", "OSError: gone"),
        ("import sys\ndef build():\n    sys.exit(0)\n", r"sys\.exit\(0\)"),
        ("import torch\ndef build():\n    return torch.jit.script(torch.nn.Linear(2, 2))\n", "TorchScript module"),
    ],
)
def test_what_is_wrong_with_the_function_is_reported(tmp_path, source, said):
    with pytest.raises(ConfigurationError, match=said):
        built_module(reference(tmp_path, source), None)


@pytest.mark.parametrize(("cast", "said"), [("half", "float16"), ("double", "float64")])
def test_another_float_is_cast_and_said(tmp_path, cast, said):
    notices = []
    source = f"from torch import nn\ndef build():\n    return nn.Linear(2, 2).{cast}()\n"
    found = built_module(reference(tmp_path, source), None, notices.append)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert len(notices) == 1
    assert said in notices[0]


def test_source_is_the_file_beside_the_project(tmp_path):
    found = reference(tmp_path, "x = 1\n")
    assert source_file(found).read_text() == "x = 1\n"


def test_tied_weights_need_one_name(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a
            self.c = nn.Linear(4, 4)

    save_model(Tied(), tmp_path / "w.safetensors")
    loaded = Tied()
    load_weights(loaded, tmp_path / "w.safetensors")
    assert len(read_weights(tmp_path / "w.safetensors")) == 4  # of one name for what is tied
    save_file({"a.weight": torch.zeros(4, 4), "a.bias": torch.zeros(4)}, tmp_path / "less.safetensors")
    with pytest.raises(ConfigurationError, match=r"lacks c\.weight|lacks `c\.weight`"):
        load_weights(Tied(), tmp_path / "less.safetensors")


def test_a_model_with_weight_norm_can_be_copied(tmp_path):
    source = """\
from torch import nn
from torch.nn.utils import weight_norm
def build():
    return nn.Sequential(weight_norm(nn.Conv1d(1, 4, 3)), nn.ReLU())
"""
    module = built_module(reference(tmp_path, source), None)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(torch.ones(1, 1, 8)), module(torch.ones(1, 1, 8)))
