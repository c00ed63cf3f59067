"""PT2 import: a program of ``torch.export.save`` (.pt2) as a module of PyTorch layers.

Convolutions, linear layers and BatchNorm become the original layers, by the names of their weights, so that folding,
quantization and pruning can read them; all else stays a call. The module is compared with the program on a random
sample.

Parts that torch would unpickle without ``weights_only``, and compiled libraries, are refused before anything is read. A
.pt2 can run code all the same: SymPy reads its expressions of sizes, and evaluates them as text. It is announced as the
person's own code, like a Python file.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgekd.errors import ConfigurationError, Place, first_line
from edgekd.students.graph import operator_of
from edgekd.students.outputs import logits_in
from edgekd.students.weights import frozen
from edgekd.tasks.named_inputs import NamedInput

if TYPE_CHECKING:
    from torch.export.pt2_archive._package import PT2ArchiveReader

__all__ = ["module_of", "program_inputs"]

_AGAIN = "export it again: torch.export.save(torch.export.export(model.eval(), (images,)), 'model.pt2')"
_MODEL = "model"  # as torch.export.save calls it
_SAMPLES, _COMPILED, _PLAIN = "data/sample_inputs/", "data/aotinductor/", ("weight_", "tensor_")
_TOLERANCE, _TOLERANCE_HALF = 1e-4, 2e-2  # of the largest output
_INSTEAD = "give the function that builds it: my_model.py:build, with --weights"
_DROPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range")


def module_of(path: Path, notice: Callable[[str], None] = lambda _: None) -> nn.Module:
    """Convert the program to a module in eval mode, frozen, float32. ``notice`` is called about a cast.

    Raises ConfigurationError for a file that is no such program, has pickled parts, was exported in training mode, or
    whose module has other outputs.
    """
    program = _program(path)
    place = Place(str(path))
    try:
        module = _Layers(program, place).module()
        same = _same_answers(program, module)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise ConfigurationError.one(f"can't be converted to layers: {first_line(error)}", _INSTEAD, place) from error
    if not same:
        raise ConfigurationError.one("has other outputs after conversion to layers", _INSTEAD, place)
    return frozen(module, path.name, notice)


def _same_answers(program: ExportedProgram, module: nn.Module) -> bool:
    """Return whether both have the same outputs for one random sample, or as many as the program was exported with."""
    drawn, inputs = torch.Generator().manual_seed(0), list[Tensor]()
    for given in (node.meta["val"] for node in _inputs_of(program)):
        batch = given.shape[0] if isinstance(given.shape[0], int) else given.shape[0].node.hint or 2
        shape = (batch, *map(int, given.shape[1:]))
        values = torch.randn(shape, generator=drawn)
        inputs.append(values.to(given.dtype) if given.is_floating_point() else (values > 0).to(given.dtype))
    args, kwargs = pytree.tree_unflatten(inputs, program.call_spec.in_spec)
    with torch.no_grad():
        answer, found = program.module()(*args, **kwargs), module.eval()(*inputs)
    logits = logits_in(answer)
    expected = pytree.tree_leaves(answer) if logits is None else [logits]
    pairs = zip(pytree.tree_leaves(found), expected, strict=True)
    return all(_is_close(one, other) for one, other in pairs if isinstance(other, Tensor))


def _is_close(found: Tensor, expected: Tensor) -> bool:
    share = _TOLERANCE if expected.dtype in (torch.float32, torch.float64) else _TOLERANCE_HALF
    limit = share * max(1e-6, float(torch.nan_to_num(expected).abs().max())) if expected.numel() else 0.0
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0.0, atol=limit, equal_nan=True)


def program_inputs(path: Path) -> tuple[NamedInput, ...]:
    """Return the program's inputs, without their batch.

    Raises ConfigurationError for a file that is no program, or whose inputs are not all tensors (N, ...).
    """
    program = _program(path)
    for node in _inputs_of(program):
        if not isinstance(node.meta["val"], Tensor) or node.meta["val"].dim() < 2:
            raise ConfigurationError.one(
                f"its input `{node.name}` is no tensor (N, ...)", "export it with tensors alone", Place(str(path))
            )
    return tuple(
        NamedInput(
            name=node.name,
            shape=tuple(int(size) for size in node.meta["val"].shape[1:]),
            dtype="float32" if node.meta["val"].is_floating_point() else "int32",
        )
        for node in _inputs_of(program)
    )


def _program(path: Path) -> ExportedProgram:
    from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2  # a second, which few commands need

    place = Place(str(path))
    try:
        with PT2ArchiveReader(str(path)) as archive:  # torch's own reader: another one might see other parts
            _refuse_code(archive, place)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigurationError.one(f"is no .pt2 file: {first_line(error)}", _AGAIN, place) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = load_pt2(str(path)).exported_programs[_MODEL]
            regions = any(node.op == "get_attr" for node in program.graph.nodes)  # torch.no_grad() in its forward
            return program.run_decompositions({}) if regions else program
    except Exception as error:  # a damaged or newer file raises many kinds
        raise ConfigurationError.one(
            f"can't be read by torch {torch.__version__}: {first_line(error)}", _AGAIN, place
        ) from error


def _refuse_code(archive: PT2ArchiveReader, place: Place) -> None:
    """Raise ConfigurationError for parts that torch would unpickle without a guard, or load as a library."""

    def refused(what: str) -> ConfigurationError:
        return ConfigurationError.one(f"holds {what}: reading it would run code", _AGAIN, place)

    names = archive.get_file_names()
    if len({name.lower() for name in names}) < len(names):  # torch does not define which of two it reads
        raise refused("two parts of one name")
    for name in names:
        if name.startswith(_SAMPLES):
            try:
                torch.load(io.BytesIO(archive.read_bytes(name)), weights_only=True)
            except Exception as error:  # where this fails, torch.export.load reads them without the guard
                raise refused(f"pickled objects in {name}") from error
        elif name.lower().endswith((".pt", ".pkl")):
            raise refused(f"pickled objects in {name}")
        elif name.lower().startswith(_COMPILED):
            raise refused(f"a compiled library in {name}")
        elif name.lower().endswith("_config.json"):
            for entry in json.loads(archive.read_bytes(name)).get("config", {}).values():
                if entry.get("use_pickle") or not str(entry.get("path_name")).startswith(_PLAIN):
                    raise refused(f"pickled objects in {entry.get('path_name')}")


def _inputs_of(program: ExportedProgram) -> list[fx.Node]:
    names = program.graph_signature.user_inputs
    return [node for node in program.graph.nodes if node.name in names]


class _Layers:
    """Conversion of a program's graph to one of layers."""

    def __init__(self, program: ExportedProgram, place: Place) -> None:
        signature = program.graph_signature
        if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
            raise ConfigurationError.one("changes its own buffers: it was exported while training", _AGAIN, place)
        self._program, self._place = program, place
        self._names: Mapping[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._tensors: Mapping[str, Any] = {**program.state_dict, **program.constants}
        self._root, self._graph = nn.Module(), fx.Graph()
        self._made: dict[str, str] = {}  # source of a layer -> its path
        self._new: dict[fx.Node, fx.Node] = {}

    def module(self) -> nn.Module:
        """Convert the whole program."""
        given = _inputs_of(self._program)
        for node in self._program.graph.nodes:
            if node in given:
                self._new[node] = self._input(node, node.name if len(given) > 1 else "images")
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._graph.output(fx.node.map_arg(self._answer(node.args[0]), self._of))
        module = fx.GraphModule(self._root, self._graph)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def _input(self, node: fx.Node, name: str) -> fx.Node:
        """Return the new graph's input: whole numbers of any type become the program's."""
        given, dtype = self._graph.placeholder(name), node.meta["val"].dtype
        return given if dtype.is_floating_point else self._graph.call_method("to", (given, dtype))

    def _answer(self, nodes: Any) -> Any:
        """Return the logits node; all output nodes if `logits_in` finds none."""
        values = [node.meta["val"] for node in nodes]
        found = logits_in(pytree.tree_unflatten(values, self._program.call_spec.out_spec))
        return next((node for node, value in zip(nodes, values, strict=True) if value is found), tuple(nodes))

    def _call(self, node: fx.Node) -> None:
        name = operator_of(node)
        if getattr(node.target, "_opname", "") in _DROPPED:
            return
        if name == "dropout" and len(node.args) > 2 and node.args[2]:
            raise ConfigurationError.one("drops out at random: it was exported while training", _AGAIN, self._place)
        layer = _MAKERS[name](self, node) if name in _MAKERS else None
        if layer is None:
            self._new[node] = self._graph.node_copy(node, self._of)
        else:
            path = self._kept(node, layer)
            self._new[node] = self._graph.call_module(path, (self._of(_source(node)),))

    def _of(self, node: fx.Node) -> fx.Node:
        """Return the new graph's node for one of the program's."""
        if node not in self._new:  # a weight that is used by more than a layer of its own
            name = self._names[node.name]
            self._hold(name)
            self._new[node] = self._graph.get_attr(name)
        return self._new[node]

    def tensor(self, argument: Any) -> Tensor | None:
        """Return the weight that an argument refers to; None if it is computed or absent."""
        if isinstance(argument, fx.Node) and argument.name in self._names:
            return torch.as_tensor(self._tensors[self._names[argument.name]]).detach()
        return None

    def refuse(self, reason: str) -> ConfigurationError:
        """Return the error for an unsupported program."""
        return ConfigurationError.one(reason, _AGAIN, self._place)

    def _kept(self, node: fx.Node, layer: nn.Module) -> str:
        """Return the path of a layer: its weight's without the last part, numbered if another layer has that path."""
        weight = next((a for a in node.args[1:] if isinstance(a, fx.Node) and a.name in self._names), None)
        stem = self._names[weight.name].rpartition(".")[0] if weight is not None else ""
        stem, made = stem or str(node.name), f"{layer} {[getattr(a, 'name', a) for a in node.args[1:]]}"
        path, number = stem, 0
        while self._made.get(path, made) != made or (path not in self._made and _taken(self._root, path)):
            number += 1
            path = f"{stem}_{number}"
        if path not in self._made:
            self._made[path] = made
            _place(self._root, path, layer)
        return path

    def _hold(self, name: str) -> None:
        value = torch.as_tensor(self._tensors[name]).detach().clone()
        holder, _, last = name.rpartition(".")
        owner = _folder(self._root, holder)
        if hasattr(owner, last):
            return
        if value.is_floating_point() and name in self._program.state_dict:
            owner.register_parameter(last, nn.Parameter(value, requires_grad=False))
        else:
            owner.register_buffer(last, value)


def _source(node: fx.Node) -> fx.Node:
    found = node.args[0]
    assert isinstance(found, fx.Node)
    return found


def _convolution(layers: _Layers, node: fx.Node) -> nn.Module | None:
    weight = layers.tensor(node.args[1])
    bias = layers.tensor(node.args[2]) if len(node.args) > 2 else None
    computed = len(node.args) > 2 and node.args[2] is not None and bias is None
    if weight is None or weight.dim() not in (3, 4) or computed:
        return None
    options: list[Any] = list(node.args[3:])
    if node.target is torch.ops.aten.convolution.default:
        stride, padding, dilation, transposed, _, groups = options
        if transposed:
            return None
    else:
        defaults: list[Any] = [1, 0, 1, 1]
        stride, padding, dilation, groups = [*options, *defaults[len(options) :]]
    sizes = weight.shape[1] * groups, weight.shape[0]
    if weight.dim() == 3:
        layer: nn.Module = nn.Conv1d(
            *sizes, weight.shape[2], _pair(stride)[0],
            padding if isinstance(padding, str) else _pair(padding)[0], _pair(dilation)[0], groups, bias is not None,
        )  # fmt: skip
        return _filled(layer, weight=weight, bias=bias)
    height, width = weight.shape[2:]
    layer = nn.Conv2d(
        *sizes, (height, width), _pair(stride),
        padding if isinstance(padding, str) else _pair(padding), _pair(dilation), groups, bias is not None,
    )  # fmt: skip
    return _filled(layer, weight=weight, bias=bias)


def _linear(layers: _Layers, node: fx.Node) -> nn.Module | None:
    if node.target is not torch.ops.aten.linear.default:
        return None
    weight, bias = layers.tensor(node.args[1]), layers.tensor(node.args[2]) if len(node.args) > 2 else None
    if weight is None or (len(node.args) > 2 and node.args[2] is not None and bias is None):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _filled(layer, weight=weight, bias=bias)


def _batch_norm(layers: _Layers, node: fx.Node) -> nn.Module | None:
    if node.target is not torch.ops.aten.batch_norm.default:
        return None
    if node.args[5]:
        raise layers.refuse("has a BatchNorm over the batch itself: it was exported while training")
    weight, bias, mean, variance = (layers.tensor(argument) for argument in node.args[1:5])
    computed = any(isinstance(one, fx.Node) and layers.tensor(one) is None for one in node.args[1:5])
    if computed or mean is None or variance is None or (weight is None) != (bias is None):
        return None
    kind = nn.BatchNorm2d if _source(node).meta["val"].dim() == 4 else nn.BatchNorm1d
    epsilon = node.args[7]
    assert isinstance(epsilon, float)
    layer = kind(len(mean), eps=epsilon, affine=weight is not None)
    return _filled(layer, weight=weight, bias=bias, running_mean=mean, running_var=variance)


_MAKERS: Mapping[str, Callable[[_Layers, fx.Node], nn.Module | None]] = {
    "conv": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
}


def _filled(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    given = {name: value for name, value in tensors.items() if value is not None}
    layer.to(next(iter(given.values())).dtype).load_state_dict(given, strict=False)
    return layer


def _pair(value: Any) -> tuple[int, int]:
    sizes = list(value) if isinstance(value, (list, tuple)) else [value]
    return (sizes[0], sizes[-1])


def _folder(root: nn.Module, path: str) -> nn.Module:
    for name in path.split(".") if path else ():
        if name not in dict(root.named_children()):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    holder, _, last = path.rpartition(".")
    _folder(root, holder).add_module(last, layer)


def _taken(root: nn.Module, path: str) -> bool:
    try:
        root.get_submodule(path)
    except AttributeError:
        return False
    return True
