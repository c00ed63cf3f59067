"""One small teacher, as a PyTorch module, as a file of weights and as ONNX."""

from __future__ import annotations

import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SOURCE = textwrap.dedent(
    """
    from torch import nn

    def small():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 4),
        )
    """
)


@pytest.fixture
def spec(small_spec) -> TaskSpec:
    return small_spec


@pytest.fixture
def small_spec() -> TaskSpec:
    return TaskSpec(
        name="small",
        input=InputSpec(shape=(3, 8, 8), mean=(120.0,), std=(60.0,)),
        head=HeadSpec(classes=4),
        data="0" * 64,
    )


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """Holds small_teacher.py and small.safetensors."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "small_teacher.py").write_text(SOURCE)
    module = small_module()
    save_file(module.state_dict(), folder / "small.safetensors")
    return folder


def small_module() -> nn.Module:
    names: dict = {}
    exec(SOURCE, names)
    torch.manual_seed(0)
    return names["small"]().eval()


@pytest.fixture
def module() -> nn.Module:
    return small_module()


@pytest.fixture
def options() -> dict:
    return {"module": "small_teacher.py:small", "weights": "small.safetensors"}
