"""The shipped suite on the device that only simulates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgekd_example.npu import TOY, ToyNpu
from onnx import TensorProto, helper, numpy_helper, save

from edgekd.artefacts import Backend
from edgekd.testing.contracts.simulator import SimulatorContract


def convolution(path: Path, channels: int) -> Path:
    """3 x 3, over 8 x 8 pixels."""
    shape = [1, channels, 8, 8]
    weights = numpy_helper.from_array(np.zeros((channels, channels, 3, 3), np.float32), "weights")
    node = helper.make_node("Conv", ["x", "weights"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    save(helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:], [weights])), path)
    return path


class TestToyNpu(SimulatorContract):
    @pytest.fixture
    def make_device(self, tmp_path: Path) -> Callable[[], ToyNpu]:
        return lambda: ToyNpu(name=f"test-{tmp_path}".replace("/", "-"))

    @pytest.fixture
    def backend(self) -> Backend:
        return Backend.model_validate(TOY.name)

    @pytest.fixture
    def models(self, tmp_path: Path) -> tuple[Path, Path]:
        return convolution(tmp_path / "small.onnx", 4), convolution(tmp_path / "large.onnx", 32)
