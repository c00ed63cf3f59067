"""Graph of a student: the program of torch.export, with stable names for its tensors.

A tensor is named by its *key*, ``path:operator``: the module that computes it and its operator (``blocks.0:add``;
``:mean`` in the outermost module), with ``.1``, ``.2``, ... if the same module repeats it, and ``input`` for the input.
Operators have one name whatever spelling torch uses (``add_``, ``add.Tensor``: ``add``), so keys are equal before and
after decomposition, and when the module is wrapped in another one.

The decoder of several heads' raw outputs (`heads.deployed`) is not part of the student, but of its exported file: it is
traced on request, and its keys begin with ``decode``.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from edgekd.ir.operators import TABLE, OperatorSpec, aten_operator
from edgekd.students._protocol import Student
from edgekd.students.fold import folded, no_graph
from edgekd.students.heads.deployed import DECODE, deployed

__all__ = [
    "Traced",
    "call",
    "execute",
    "execute_nodes",
    "is_decoding",
    "is_tensor",
    "keys_of",
    "operator_in",
    "operator_of",
    "outputs_in",
    "parameters_of",
    "spec_of",
    "trace",
]


@dataclass(frozen=True)
class Traced:
    """Program of the folded student. Keys and parameter names are those of its annotations."""

    student: Student  # folded
    program: ExportedProgram  # takes normalised float32 (N, C, H, W)
    keys: Mapping[str, str]  # node name -> key; the input and every operator
    parameters: Mapping[str, str]  # placeholder name -> parameter or buffer name

    @property
    def nodes(self) -> Mapping[str, str]:
        """Map from key to node name."""
        return {key: name for name, key in self.keys.items()}

    @property
    def trained(self) -> frozenset[str]:
        """Names of the student's parameters; fixed filters in buffers are none."""
        return frozenset(name for name, _ in self.student.module.named_parameters())


_ADAPTIVE: Mapping[str, list[int]] = {"adaptive_avg_pool1d": [2], "adaptive_avg_pool2d": [2, 3]}
"""Pools that are a mean where their output has one pixel or step, and its axes."""


def trace(student: Student, *, dynamic_batch: bool = False, decomposed: bool = True, decoded: bool = False) -> Traced:
    """Fold a student and export it. The batch axis is 1 or dynamic; ``decoded`` includes the decoder, as in a file.

    No operator of the result changes a tensor in place. Decomposition takes longer than the export itself; without
    ``decomposed`` it is done only if there are such operators. Keys of what integer kernels compute stay the same.

    Raises ConfigurationError if torch can't export the module, with torch's reason.
    """
    flat = folded(student)
    batch = 2 if dynamic_batch else 1  # torch would take an example of 1 for a constant
    example = torch.from_numpy(student.task.input.example(batch))
    shapes = ({0: Dim("batch", min=1, max=4096)},) if dynamic_batch else None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch copies its own deprecated tree specs
            module = flat.module.eval()
            whole = deployed(module, student.task).eval() if decoded else module
            program = torch.export.export(whole, (example,), dynamic_shapes=shapes)
            _pool_as_mean(program)
            if decomposed or any(_changes_in_place(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
                _keep_answers(program)
            _simplify(program)  # only now: an in-place operator may have changed a copy
            _renumber(program)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # torch's own errors are among these
        raise no_graph(f"the {student.family} module", error) from error
    prefix = "" if whole is module else "core"
    return Traced(flat, program, keys_of(program, prefix), parameters_of(program, whole, prefix))


def is_decoding(key: str) -> bool:
    """Return whether a key belongs to the decoder of raw outputs, which has no encodings."""
    return key.startswith(f"{DECODE}.") or key.startswith(f"{DECODE}:")


def outputs_in(program: ExportedProgram) -> tuple[fx.Node, ...]:
    """Return the output nodes of a program, in order."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    return tuple(output.args[0])


def operator_of(node: fx.Node) -> str:
    """Return the canonical name of a node's operator, for any overload or in-place form: ``conv``, ``linear``, ...."""
    return spec_of(node).name


def operator_in(key: str) -> str:
    """Return the operator's name in a key: ``linear`` of ``head:linear.1``."""
    return key.rpartition(":")[2].partition(".")[0]


def spec_of(node: fx.Node) -> OperatorSpec:
    """Return a node's row in the operator table. A pool to one pixel is a ``mean``."""
    target = node.target
    full = target._opname if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
    row = aten_operator(full)
    return TABLE["mean"] if row.name in _ADAPTIVE and _is_one(node.args[1]) else row


def is_tensor(node: fx.Node) -> bool:
    """Return whether a node's value is one float tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def keys_of(exported_program: ExportedProgram, core_prefix: str = "core") -> dict[str, str]:
    """Return a map from node name to key, for input and operators of a program with the student at ``core_prefix``.

    Operators outside that attribute belong to the wrapper: ``preprocess:operator``, and the decoder's by their path.
    Use an empty prefix if the student itself was exported.
    """
    seen: Counter[str] = Counter()
    keys: dict[str, str] = {}
    inputs = set(exported_program.graph_signature.user_inputs)
    for node in exported_program.graph.nodes:
        if node.op == "placeholder":
            if node.name in inputs:
                keys[node.name] = "input"
        elif node.op == "call_function" and not _is_bookkeeping(node):
            key = f"{_path(node, core_prefix)}:{operator_of(node)}"
            seen[key] += 1
            keys[node.name] = key if seen[key] == 1 else f"{key}.{seen[key] - 1}"
    return keys


def parameters_of(exported_program: ExportedProgram, module: nn.Module, core_prefix: str = "core") -> dict[str, str]:
    """Return a map from placeholder to the student's parameter or buffer name (a wrapper's own keep theirs).

    A tensor that ``module`` has under several names has its first, whichever of them the program reads.
    """
    signature = exported_program.graph_signature
    strip = f"{core_prefix}." if core_prefix else ""
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= signature.inputs_to_lifted_tensor_constants
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    first, of = dict[int, str](), dict[str, str]()
    for name, tensor in tensors:
        of[name] = first.setdefault(id(tensor), name)
    return {placeholder: of.get(name, name).removeprefix(strip) for placeholder, name in named.items()}


def execute(traced: Traced, inputs: Tensor, visit: Callable[[str, Any], Any]) -> Any:
    """Run the program on normalised (N, C, H, W). ``visit`` gets every key with its value, and may replace it.

    N must be 1 unless the batch was traced as dynamic.
    """

    def compute(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return visit(traced.keys[node.name], args[0] if node.op == "placeholder" else call(node, args, kwargs))

    return execute_nodes(traced, inputs, compute)


def execute_nodes(
    traced: Traced,
    inputs: Tensor,
    compute: Callable[[fx.Node, tuple[Any, ...], Mapping[str, Any]], Any],
    state: Mapping[str, Tensor] | None = None,
) -> Any:
    """Run the program with ``compute`` for every keyed node; its arguments are values computed before.

    ``state`` replaces the program's tensors by the names of the student's parameters: gradients reach them.
    """
    program = traced.program
    constants: Mapping[str, Any] = {**program.state_dict, **program.constants}
    signature = program.graph_signature
    names: Mapping[str, str] = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[fx.Node, Any] = {}
    left = {node: len(node.users) for node in program.graph.nodes}
    for node in program.graph.nodes:
        args = fx.node.map_arg(node.args, lambda source: values[source])
        kwargs = fx.node.map_arg(node.kwargs, lambda source: values[source])
        if node.op == "output":
            return pytree.tree_unflatten(args[0], program.call_spec.out_spec)
        if node.op == "placeholder":
            if node.name not in names:
                values[node] = compute(node, (inputs,), {})
            elif state is not None and traced.parameters[node.name] in state:
                values[node] = state[traced.parameters[node.name]]
            else:
                values[node] = constants[names[node.name]].detach().to(inputs.device)
        else:
            values[node] = (compute if node.name in traced.keys else call)(node, args, kwargs)
        for source in node.all_input_nodes:  # free values without remaining readers
            left[source] -= 1
            if not left[source]:
                values.pop(source)
    raise ValueError("the program has no output")


def call(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run torch's operator of a node on its arguments' values."""
    target: Any = node.target
    return target(*args, **kwargs)


def _keep_answers(program: ExportedProgram) -> None:
    """Drop the outputs that decomposition adds for what a forward pass changes in place: its input, or a buffer."""
    specs = program.graph_signature.output_specs
    kept = [place for place, spec in enumerate(specs) if spec.kind is OutputKind.USER_OUTPUT]
    output = next(node for node in program.graph.nodes if node.op == "output")
    output.args = (tuple(output.args[0][place] for place in kept),)
    specs[:] = [specs[place] for place in kept]
    program.graph_module.recompile()


def _pool_as_mean(program: ExportedProgram) -> None:
    """Replace a pool to one pixel or step with the following flattening by the mean over the image or signal.

    Exporters find tensors by the names and values of nodes, and torch renames these two on its way to ONNX.
    """
    graph = program.graph
    for pool in list(graph.nodes):
        axes = next((axes for name, axes in _ADAPTIVE.items() if name in str(pool.target)), [])
        if not axes or operator_of(pool) != "mean" or len(pool.users) != 1:
            continue
        (flat,) = pool.users
        if flat.op != "call_function" or operator_of(flat) not in ("flatten", "view") or flat.meta["val"].dim() != 2:
            continue
        with graph.inserting_before(pool):
            mean = graph.create_node(
                "call_function", torch.ops.aten.mean.dim, (pool.args[0], axes), name="mean", type_expr=None
            )
        mean.meta = {**pool.meta, "val": flat.meta["val"]}
        flat.replace_all_uses_with(mean)
        program.graph_signature.replace_all_uses(flat.name, mean.name)
        graph.erase_node(flat)
        graph.erase_node(pool)
    program.graph_module.recompile()


def _simplify(program: ExportedProgram) -> None:
    """Rewrite some operators in the form that every exporter keeps.

    Copies (dropout at inference, ``clone``) are removed, as are pools to the present size and dead code; an adaptive
    pool over equal windows becomes a plain one. A view becomes a reshape: the copy that made it possible may be gone.
    """
    graph = program.graph
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
        if node.op != "call_function" or any(user.op == "output" for user in node.users):
            continue  # the program's signature refers to its output by name
        name = operator_of(node)
        if name in ("dropout", "clone") and node.args and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif name == "adaptive_avg_pool2d":
            _pool_evenly(graph, node)
    program.graph_module.recompile()


def _renumber(program: ExportedProgram) -> None:
    """Number nodes of one kind in order, without gaps.

    torch does so on its way to ONNX, and values are found there by these names.
    """
    seen: Counter[str] = Counter()
    names = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            kind = re.sub(r"_\d+$", "", node.name)
            names[node.name] = kind if not seen[kind] else f"{kind}_{seen[kind]}"
            seen[kind] += 1
            node.name = names[node.name]
    for spec in program.graph_signature.output_specs:
        spec.arg.name = names.get(spec.arg.name, spec.arg.name)


def _pool_evenly(graph: fx.Graph, pool: fx.Node) -> None:
    source = pool.args[0]
    assert isinstance(source, fx.Node)
    before, after = source.meta["val"].shape[-2:], pool.meta["val"].shape[-2:]
    if before == after:
        pool.replace_all_uses_with(source)
        graph.erase_node(pool)
    elif all(isinstance(size, int) and size % part == 0 for size, part in zip(before, after, strict=True)):
        window = [int(size // part) for size, part in zip(before, after, strict=True)]
        with graph.inserting_before(pool):
            plain = graph.create_node(
                "call_function", torch.ops.aten.avg_pool2d.default, (source, window, window), name="avg_pool2d"
            )
        plain.meta = dict(pool.meta)
        pool.replace_all_uses_with(plain)
        graph.erase_node(pool)


def _path(node: fx.Node, core_prefix: str) -> str:
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    path = str(stack[-1]) if stack else ""
    if not core_prefix or path == core_prefix:
        return path if not core_prefix else ""
    if path == DECODE or path.startswith(f"{DECODE}."):
        return path
    return path.removeprefix(f"{core_prefix}.") if path.startswith(f"{core_prefix}.") else "preprocess"


def _is_bookkeeping(node: fx.Node) -> bool:
    name = getattr(node.target, "_opname", getattr(node.target, "__name__", ""))
    return "assert" in name or name.startswith("sym_")


def _changes_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_one(size: object) -> bool:
    return size == 1 or (isinstance(size, (list, tuple)) and all(part == 1 for part in size))
