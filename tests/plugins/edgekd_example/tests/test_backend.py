"""The shipped suite on the backend, whose runtime answers in processes of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgekd_example.reference import REFERENCE
from numpy.typing import NDArray
from onnx import TensorProto, helper, save

from edgekd.ir.backends import BackendSpec
from edgekd.testing.contracts.backend import BackendContract


class TestReference(BackendContract):
    @pytest.fixture
    def spec(self) -> BackendSpec:
        return REFERENCE

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """relu(x) + x"""
        nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "y"], ["z"])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xz"]
        save(helper.make_model(helper.make_graph(nodes, "doubled", ends[:1], ends[1:])), tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    @pytest.fixture
    def samples(self) -> list[NDArray[np.generic]]:
        return [np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)]
