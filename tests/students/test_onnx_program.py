"""ONNX graphs taken apart into PyTorch's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekd.errors import ConfigurationError
from edgekd.students.onnx_program import module_of_onnx, onnx_input_shape

RANDOM = np.random.default_rng(0)


def weight(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32) / 2


def written(
    path: Path,
    nodes: list[Any],
    weights: dict[str, NDArray[Any]],
    shape: list[Any] | None = None,
    inputs: int = 1,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> Path:
    given = [
        helper.make_tensor_value_info(f"x{at or ''}", TensorProto.FLOAT, shape or ["n", 3, 8, 8])
        for at in range(inputs)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        given,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def network(tail: list[Any]) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Convolutions, a BatchNorm, a sum, uneven padding; then what ``tail`` does with ``p`` (N, 8, 1, 1)."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["c"]),
        helper.make_node("Clip", ["c", "zero", "six"], ["d"]),
        helper.make_node("Conv", ["d", "w2", "b"], ["e"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["d", "e"], ["f"]),
        helper.make_node("MaxPool", ["f"], ["h"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        *tail,
    ]
    weights = {
        "w1": weight(8, 3, 3, 3), "w2": weight(8, 1, 3, 3), "g": weight(8), "b": weight(8), "m": weight(8),
        "v": np.abs(weight(8)) + 1, "zero": np.float32(0), "six": np.float32(6), "w3": weight(8, 5), "b3": weight(5),
    }  # fmt: skip
    return nodes, {name: np.asarray(value) for name, value in weights.items()}


FLAT = [helper.make_node("Flatten", ["p"], ["q"])]
LINEAR = [helper.make_node("MatMul", ["q", "w3"], ["r"]), helper.make_node("Add", ["r", "b3"], ["y"])]


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["n", 1])
def test_a_graph_becomes_layers_that_answer_as_it_does(tmp_path, batch):
    nodes, weights = network([*FLAT, *LINEAR])
    path = written(tmp_path / "m.onnx", nodes, weights, [batch, 3, 8, 8])
    module = module_of_onnx(path)
    assert onnx_input_shape(path) == (3, 8, 8)
    assert module(torch.zeros(5, 3, 8, 8)).shape == (5, 5)
    kinds = [type(part) for part in module.modules()]
    assert kinds.count(nn.Conv2d) == 2
    (linear,) = [part for part in module.modules() if isinstance(part, nn.Linear)]
    assert torch.equal(linear.bias, torch.from_numpy(weights["b3"]))


def test_a_batch_of_one_that_was_written_into_a_reshape_is_any(tmp_path):
    nodes, weights = network([helper.make_node("Reshape", ["p", "s"], ["q"]), *LINEAR])
    path = written(tmp_path / "m.onnx", nodes, {**weights, "s": np.array([1, 8])}, [1, 3, 8, 8])
    assert module_of_onnx(path)(torch.zeros(3, 3, 8, 8)).shape == (3, 5)


def test_a_mean_over_the_image_is_a_pool(tmp_path):
    nodes, weights = network([*FLAT, *LINEAR])
    mean = helper.make_node("ReduceMean", ["h"], ["p"], axes=[-1, -2], keepdims=1)
    swapped = [mean if node.op_type == "GlobalAveragePool" else node for node in nodes]
    module = module_of_onnx(written(tmp_path / "m.onnx", swapped, weights))
    assert any(isinstance(part, nn.AdaptiveAvgPool2d) for part in module.modules())


def test_what_is_not_known_is_refused_by_its_operator(tmp_path):
    path = written(tmp_path / "m.onnx", [helper.make_node("Celu", ["x"], ["y"])], {})
    with pytest.raises(ConfigurationError, match="not known here: Celu"):
        module_of_onnx(path)


def test_what_answers_differently_is_refused(tmp_path, monkeypatch):
    from edgekd.students import onnx_program

    nodes, weights = network([*FLAT, *LINEAR])
    path = written(tmp_path / "m.onnx", nodes, weights)
    monkeypatch.setitem(onnx_program._READERS, "Add", onnx_program._of(torch.sub))
    with pytest.raises(ConfigurationError, match="has other outputs than in ONNX Runtime"):
        module_of_onnx(path)


@pytest.mark.parametrize(
    ("shape", "inputs", "said"),
    [(["n", 8, 8, 3], 1, "channels last"), (["n", 3, "h", "w"], 1, "free axes"), (None, 2, "takes 2 inputs")],
)
def test_other_inputs_are_refused(tmp_path, shape, inputs, said):
    nodes = [helper.make_node("Relu", ["x"], ["y"])] if inputs == 1 else [helper.make_node("Add", ["x", "x1"], ["y"])]
    path = written(tmp_path / "m.onnx", nodes, {}, shape, inputs)
    with pytest.raises(ConfigurationError, match=said):
        module_of_onnx(path)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigurationError, match="is no ONNX file"):
        module_of_onnx(tmp_path / "m.onnx")


def test_of_several_outputs_the_one_named_logits_is_taken(tmp_path):
    nodes, weights = network([*FLAT, helper.make_node("MatMul", ["q", "w3"], ["logits"])])
    path = written(tmp_path / "m.onnx", nodes, weights, outputs=("q", "logits"))
    assert module_of_onnx(path)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    path = written(tmp_path / "m.onnx", nodes, weights, outputs=("q", "p"))
    with pytest.raises(ConfigurationError, match=r"has 2 outputs \(q, p\), and none is named `logits`"):
        module_of_onnx(path)


OLDER = [
    helper.make_node("Pad", ["p"], ["o"], mode="constant", pads=[0, 0, 0, 0, 0, 0, 1, 1], value=0.5),
    helper.make_node("Split", ["o"], ["s", "t"], axis=1, split=[6, 2]),
    helper.make_node("GlobalAveragePool", ["s"], ["u"]),
    helper.make_node("Flatten", ["u"], ["q"]),
    helper.make_node("Gemm", ["q", "w6", "one"], ["y"]),
]


def test_operators_are_read_as_older_opsets_write_them(tmp_path):
    nodes, weights = network(OLDER)
    swapped = [
        helper.make_node("Clip", ["c"], ["d"], min=0.0, max=6.0) if node.op_type == "Clip" else node for node in nodes
    ]
    more = {"w6": weight(6, 5), "one": np.array([0.5], np.float32)}
    path = written(tmp_path / "m.onnx", swapped, {**weights, **more}, opset=10)
    assert module_of_onnx(path)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ([helper.make_node("Transpose", ["p"], ["y"])], "a Transpose of all axes"),
        ([*FLAT, helper.make_node("Gemm", ["q", "w3", "b2"], ["y"])], r"a Gemm with a bias \(2, 1\)"),
        ([*FLAT, helper.make_node("Gemm", ["q", "w3", ""], ["r"]), helper.make_node("Cos", ["r"], ["y"])], "Cos"),
    ],
)
def test_what_can_not_be_read_is_refused_and_not_a_traceback(tmp_path, tail, said):
    nodes, weights = network(tail)
    path = written(tmp_path / "m.onnx", nodes, {**weights, "b2": weight(2, 1)})
    with pytest.raises(ConfigurationError, match=said):
        module_of_onnx(path)


def test_a_bias_that_is_added_outside_a_linear_layer_is_taken_or_added(tmp_path):
    for shape in ((5,), (1, 5), (1,)):
        nodes, weights = network([*FLAT, *LINEAR])
        path = written(tmp_path / "m.onnx", nodes, {**weights, "b3": weight(*shape)})
        assert module_of_onnx(path)(torch.zeros(3, 3, 8, 8)).shape == (3, 5)
