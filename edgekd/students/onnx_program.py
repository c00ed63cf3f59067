"""ONNX import: an ONNX graph as a module of PyTorch layers, so that all formats and precisions are available.

Operators of image classifiers are supported; others are refused by name. The module is compared with ONNX Runtime on
random images before it is used, since an operator's meaning may depend on attributes that are not handled.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional

from edgekd.errors import ConfigurationError, Place, first_line
from edgekd.external_weights import external_files

__all__ = ["module_of_onnx", "onnx_input_shape"]

_INSTEAD = "give the PyTorch model it came from: my_model.py:build, or a .pt2 of torch.export.save"
_LOGITS = "logits"
_TOLERANCE = 1e-4  # of the largest output

Value = fx.Node | NDArray[Any]
Attributes = Mapping[str, Any]


def onnx_input_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of the graph's only input, without its batch. Raises ConfigurationError if it has none."""
    place, model = Place(str(path)), _read(path)
    given = _input_of(model, place)
    sizes = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
    if len(sizes) < 2 or not all(sizes[1:]):
        raise ConfigurationError.one(f"its input `{given.name}` has free axes: {sizes}", _INSTEAD, place)
    if len(sizes) == 4 and sizes[3] in (1, 3, 4) and sizes[1] not in (1, 3, 4):
        raise ConfigurationError.one(f"its input {sizes} has channels last", _INSTEAD, place)
    return tuple(sizes[1:])


def module_of_onnx(path: Path) -> nn.Module:
    """Convert the graph to a module in eval mode, frozen; takes (N, C, H, W) with any N.

    Raises ConfigurationError for an unknown operator, and if the outputs differ from ONNX Runtime's.
    """
    place, shape = Place(str(path)), onnx_input_shape(path)
    model = _read(path)
    output = _output_of(model, place)
    images = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    try:
        module = _Reading(model, output, place).module().eval().requires_grad_(False)
        expected = np.concatenate([_answer(path, output, images[at : at + 1], place) for at in range(2)])
        with torch.no_grad():
            found = module(torch.from_numpy(images)).numpy()
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = first_line(error)
        raise ConfigurationError.one(
            f"can't be converted to layers that take any batch size: {reason}", _INSTEAD, place
        ) from error
    limit = _TOLERANCE * max(1e-6, float(np.abs(expected).max(initial=0.0)))
    if found.shape != expected.shape or not float(np.abs(found - expected).max(initial=0.0)) <= limit:
        raise ConfigurationError.one(
            "has other outputs than in ONNX Runtime after conversion to layers", _INSTEAD, place
        )
    return module


def _read(path: Path) -> Any:
    import onnx
    from onnxscript import optimizer

    external_files(path)  # weights outside the model's folder are refused
    try:
        return optimizer.optimize(onnx.load(path))  # folds what is constant: shapes, above all
    except Exception as error:  # a damaged file raises many kinds in protobuf and onnx
        reason = first_line(error)
        raise ConfigurationError.one(f"is no ONNX file: {reason}", "export it again", Place(str(path))) from error


def _input_of(model: Any, place: Place) -> Any:
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [one for one in model.graph.input if one.name not in weights]
    if len(given) != 1 or given[0].type.tensor_type.elem_type != 1:
        names = ", ".join(one.name for one in given)
        raise ConfigurationError.one(
            f"takes {len(given)} inputs ({names}), and models of one float32 image are taken so far", _INSTEAD, place
        )
    return given[0]


def _output_of(model: Any, place: Place) -> str:
    """Return the logits output: the only one, or that named `logits`. Raises ConfigurationError for others."""
    names = [one.name for one in model.graph.output]
    if len(names) != 1 and _LOGITS not in names:
        raise ConfigurationError.one(
            f"has {len(names)} outputs ({', '.join(names)}), and none is named `{_LOGITS}`",
            f"export a graph with one output, or name the logits `{_LOGITS}`",
            place,
        )
    return names[0] if len(names) == 1 else _LOGITS


def _answer(path: Path, output: str, image: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.asarray(session.run([output], {session.get_inputs()[0].name: image})[0])
    except Exception as error:  # its own exceptions have no common base
        reason = first_line(error)
        raise ConfigurationError.one(f"ONNX Runtime refuses it: {reason}", "export it again", place) from error


class _Reading:
    """Conversion of one graph."""

    def __init__(self, model: Any, output: str, place: Place) -> None:
        from onnx import helper, numpy_helper

        self._model, self._output, self._place = model, output, place
        self._attributes: Callable[[Any], Any] = helper.get_attribute_value
        self._array: Callable[[Any], NDArray[Any]] = numpy_helper.to_array
        self.root, self.graph = nn.Module(), fx.Graph()
        self.values: dict[str, Value | Sequence[fx.Node]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._count = 0
        self._readers = Counter(name for node in model.graph.node for name in node.input)
        self._readers.update(one.name for one in model.graph.output)
        self._written: dict[fx.Node, str] = {}

    def read_once(self, node: fx.Node) -> bool:
        """Return whether exactly one operator reads a node's value."""
        return self._readers[self._written.get(node, "")] == 1

    def module(self) -> fx.GraphModule:
        """Convert the whole graph, with the logits as its output."""
        self.values[_input_of(self._model, self._place).name] = self.graph.placeholder("images")
        for node in self._model.graph.node:
            if node.op_type not in _READERS or node.domain not in ("", "ai.onnx"):
                raise self.refuse(f"has an operator that is not known here: {node.op_type} (`{node.name}`)")
            attributes = {one.name: self._attributes(one) for one in node.attribute}
            inputs = [self.values[name] if name else None for name in node.input]
            made = _READERS[node.op_type](self, inputs, attributes)
            outputs = made if isinstance(made, list) else [made]
            self.values |= dict(zip(node.output, outputs, strict=False))
            self._written |= {one: name for one, name in zip(outputs, node.output, strict=False) if _is_node(one)}
        self.graph.output(self.node(self.values[self._output]))
        module = fx.GraphModule(self.root, self.graph)
        module.graph.eliminate_dead_code()  # operators of other outputs
        module.recompile()
        return module

    def refuse(self, reason: str) -> ConfigurationError:
        """Return the error for an unsupported graph."""
        return ConfigurationError.one(reason, _INSTEAD, self._place)

    def layer_of(self, value: Any) -> Any:
        """Return the layer that computes a value; None if no layer does."""
        called = isinstance(value, fx.Node) and value.op == "call_module"
        return self.root.get_submodule(str(value.target)) if called else None

    def node(self, value: Any) -> fx.Node:
        """Return a value as a node: constants become buffers."""
        if isinstance(value, fx.Node):
            return value
        name = self._name("constant")
        self.root.register_buffer(name, torch.from_numpy(np.array(value)))
        return self.graph.get_attr(name)

    def constant(self, value: Any, what: str) -> NDArray[Any]:
        """Return a value that must be constant. Raises ConfigurationError if it is computed."""
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"has {what} that is computed")
        return value

    def array(self, tensor: Any) -> NDArray[Any]:
        """Return the array of a constant's attribute."""
        return self._array(tensor)

    def layer(self, kind: str, layer: nn.Module, value: Any) -> fx.Node:
        """Add a layer and call it."""
        name = self._name(kind)
        self.root.add_module(name, layer)
        return self.graph.call_module(name, (self.node(value),))

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> fx.Node:
        """Call a function."""
        given = tuple(self.node(one) if isinstance(one, np.ndarray) else one for one in arguments)
        return self.graph.call_function(function, given, named)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def _is_node(value: object) -> bool:
    return isinstance(value, fx.Node)


def _pads(reading: _Reading, attributes: Attributes, value: Any, fill: float = 0.0) -> tuple[Any, tuple[int, int]]:
    """Return the value, explicitly padded if the sides differ, and the layer's own padding."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise reading.refuse(f"pads by {attributes['auto_pad'].decode()}, which depends on the input's size")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return value, (top, left)
    return reading.call(functional.pad, reading.node(value), (left, right, top, bottom), value=fill), (0, 0)


def _conv(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    weight = reading.constant(inputs[1], "a convolution's weight")
    if weight.ndim != 4:
        raise reading.refuse(f"has a convolution over {weight.ndim - 2} axes")
    bias = reading.constant(inputs[2], "a bias") if len(inputs) > 2 and inputs[2] is not None else None
    value, padding = _pads(reading, attributes, inputs[0])
    groups = attributes.get("group", 1)
    strides, dilations = (tuple(attributes.get(name, (1, 1))) for name in ("strides", "dilations"))
    height, width = weight.shape[2:]
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], (height, width), (strides[0], strides[1]), padding,
        (dilations[0], dilations[1]), groups, bias is not None,
    )  # fmt: skip
    return reading.layer("conv", _filled(layer, weight=weight, bias=bias), value)


def _batch_norm(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    if attributes.get("training_mode", 0):
        raise reading.refuse("has a BatchNormalization in training mode")
    weight, bias, mean, variance = (reading.constant(one, "a statistic") for one in inputs[1:5])
    layer = nn.BatchNorm2d(len(mean), eps=attributes.get("epsilon", 1e-5))
    filled = _filled(layer, weight=weight, bias=bias, running_mean=mean, running_var=variance)
    return reading.layer("norm", filled, inputs[0])


def _gemm(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    weight = reading.constant(inputs[1], "a linear layer's weight")
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    if not plain:
        raise reading.refuse("has a Gemm that scales or turns its input")
    weight = weight if attributes.get("transB", 0) else weight.T
    bias = reading.constant(inputs[2], "a bias") if len(inputs) > 2 and inputs[2] is not None else None
    if bias is not None and bias.size not in (1, len(weight)):
        raise reading.refuse(f"has a Gemm with a bias {bias.shape}, which is not one for each result")
    bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).copy() if bias is not None else None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return reading.layer("linear", _filled(layer, weight=weight, bias=bias), inputs[0])


def _matmul(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    if isinstance(inputs[1], np.ndarray) and inputs[1].ndim == 2:
        return _gemm(reading, inputs, attributes)
    return reading.call(torch.matmul, *inputs)


def _clip(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    low, high = (
        float(reading.constant(inputs[at], "a bound"))
        if len(inputs) > at and inputs[at] is not None
        else attributes.get(name)
        for at, name in ((1, "min"), (2, "max"))
    )
    if (low, high) == (0.0, 6.0):
        return reading.layer("relu6", nn.ReLU6(), inputs[0])
    return reading.call(torch.clamp, inputs[0], low, high)


def _pool(reading: _Reading, inputs: Sequence[Any], attributes: Attributes, largest: bool) -> fx.Node:
    size = tuple(attributes["kernel_shape"])
    if len(size) != 2 or set(attributes.get("dilations", (1, 1))) != {1}:
        raise reading.refuse("has a pool that is dilated, or not over two axes")
    value, padding = _pads(reading, attributes, inputs[0], float("-inf") if largest else 0.0)
    uneven = value is not inputs[0]
    stride, up = tuple(attributes.get("strides", (1, 1))), bool(attributes.get("ceil_mode", 0))
    if largest:
        return reading.layer("pool", nn.MaxPool2d(size, stride, padding, ceil_mode=up), value)
    counted = bool(attributes.get("count_include_pad", 0))
    if uneven and not counted:
        raise reading.refuse("averages over unequal sides without what pads them")
    return reading.layer("pool", nn.AvgPool2d(size, stride, padding, up, counted), value)


def _reshape(reading: _Reading, inputs: Sequence[Any], _: Attributes) -> fx.Node:
    sizes = [int(size) for size in reading.constant(inputs[1], "a shape")]
    if sizes and sizes[0] in (0, 1) and -1 not in sizes[1:] and 0 not in sizes[1:]:
        sizes[0] = -1  # a batch of one, as it was exported: any, here
    elif sizes and sizes[0] in (-1, 0) and sizes[1:] == [-1]:
        return reading.call(torch.flatten, inputs[0], 1)
    if 0 in sizes or sizes.count(-1) > 1 or (sizes and sizes[0] != -1):
        raise reading.refuse(f"has a Reshape to {sizes}, which is not of any batch")
    return reading.call(torch.reshape, inputs[0], tuple(sizes))


def _mean(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    axes = (
        attributes.get("axes") if len(inputs) < 2 or inputs[1] is None else reading.constant(inputs[1], "axes").tolist()
    )
    if not axes:
        raise reading.refuse("has a mean over everything, the batch too")
    kept = bool(attributes.get("keepdims", 1))
    if kept and sorted(axes) in ([-2, -1], [2, 3]):  # over the image: the pool that it was written for
        return reading.layer("pool", nn.AdaptiveAvgPool2d(1), inputs[0])
    return reading.call(torch.mean, inputs[0], list(axes), keepdim=kept)


def _axes(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> list[int]:
    found = attributes.get("axes") if len(inputs) < 2 else reading.constant(inputs[1], "axes").tolist()
    if not found:
        raise reading.refuse("has a Squeeze without axes")
    return [int(axis) for axis in found]


def _squeeze(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    return reading.call(torch.squeeze, inputs[0], tuple(_axes(reading, inputs, attributes)))


def _unsqueeze(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    value = inputs[0]
    for axis in sorted(_axes(reading, inputs, attributes)):
        value = reading.call(torch.unsqueeze, value, axis)
    return reading.node(value)


def _pad(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    if len(inputs) < 2:  # opset 10 and below
        pads, fill = list(attributes["pads"]), float(attributes.get("value", 0.0))
    else:
        pads = reading.constant(inputs[1], "padding").tolist()
        fill = reading.constant(inputs[2], "a fill").item() if len(inputs) > 2 and inputs[2] is not None else 0.0
    if attributes.get("mode", b"constant") != b"constant" or (len(inputs) > 3 and inputs[3] is not None):
        raise reading.refuse("pads by its own values, or along named axes")
    half = len(pads) // 2
    sides = [side for axis in reversed(range(half)) for side in (int(pads[axis]), int(pads[half + axis]))]
    return reading.call(functional.pad, inputs[0], tuple(sides), value=fill)


def _split(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> list[fx.Node]:
    axis = attributes.get("axis", 0)
    given = attributes.get("split")  # opset 12 and below
    if len(inputs) > 1 and inputs[1] is not None:
        given = reading.constant(inputs[1], "sizes")
    if given is None:
        raise reading.refuse("splits into parts of no stated size")
    sizes = [int(size) for size in given]
    parts = reading.call(torch.split, inputs[0], sizes, dim=axis)
    return [reading.call(operator.getitem, parts, at) for at in range(len(sizes))]


def _transpose(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> fx.Node:
    if "perm" not in attributes:
        raise reading.refuse("has a Transpose of all axes, the batch too")
    return reading.call(torch.permute, inputs[0], tuple(attributes["perm"]))


def _constant(reading: _Reading, inputs: Sequence[Any], attributes: Attributes) -> Any:  # noqa: ARG001  # has none
    if "value" not in attributes:
        raise reading.refuse("has a constant in words or lists")
    return reading.array(attributes["value"])


def _filled(layer: nn.Module, **arrays: NDArray[Any] | None) -> nn.Module:
    state: dict[str, Tensor] = {name: torch.tensor(value) for name, value in arrays.items() if value is not None}
    layer.load_state_dict(state, strict=False)
    return layer


def _add(reading: _Reading, inputs: Sequence[Any], _: Attributes) -> Any:
    """Convert a sum; a vector added to a linear layer's result, if read once, becomes the layer's bias."""
    for one, other in (inputs, inputs[::-1]):
        layer: Any = reading.layer_of(one)
        if not isinstance(layer, nn.Linear) or not isinstance(other, np.ndarray):
            continue
        bare = "bias" not in dict(layer.named_parameters())
        if bare and other.shape == (layer.out_features,) and reading.read_once(one):
            layer.bias = nn.Parameter(torch.tensor(other))
            return one
    return reading.call(torch.add, *inputs)


def _same(reading: _Reading, inputs: Sequence[Any], _: Attributes) -> Any:  # noqa: ARG001  # a reader's signature
    return inputs[0]


Reader = Callable[[_Reading, Sequence[Any], Attributes], Any]


def _of(function: Callable[..., Any]) -> Reader:
    """Return a reader of an operator that is a function of its inputs only."""
    return lambda reading, inputs, _: reading.call(function, *inputs)


def _layer(kind: str, make: Callable[[], nn.Module]) -> Reader:
    return lambda reading, inputs, _: reading.layer(kind, make(), inputs[0])


_READERS: Mapping[str, Reader] = {
    "Add": _add,
    "AveragePool": lambda reading, inputs, attributes: _pool(reading, inputs, attributes, False),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda r, i, a: r.call(torch.cat, [r.node(one) for one in i], a["axis"]),
    "Constant": _constant,
    "Conv": _conv,
    "Div": _of(torch.div),
    "Dropout": _same,
    "Erf": _of(torch.erf),
    "Flatten": lambda r, i, a: r.call(torch.flatten, i[0], a.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": _layer("pool", lambda: nn.AdaptiveAvgPool2d(1)),
    "HardSwish": _layer("hardswish", nn.Hardswish),
    "Identity": _same,
    "LeakyRelu": lambda r, i, a: r.call(functional.leaky_relu, i[0], a.get("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": lambda reading, inputs, attributes: _pool(reading, inputs, attributes, True),
    "Mul": _of(torch.mul),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _layer("relu", nn.ReLU),
    "Reshape": _reshape,
    "Sigmoid": _of(torch.sigmoid),
    "Softmax": lambda r, i, a: r.call(torch.softmax, i[0], a.get("axis", -1)),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _of(torch.sub),
    "Tanh": _of(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
