"""Float32 graph of a student in ONNX: torch's export without its metadata, and small edits on it.

Every value has the name of the program's node that computes it, every initializer the parameter's name: encodings are
found by name. Where torch has renamed a value on its way to ONNX, it is found by its value for a random sample.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import fx

from edgekd.errors import ConfigurationError, first_line
from edgekd.export.matching import node_values, same_tensor
from edgekd.students.graph import Traced, is_decoding, is_tensor, operator_of, spec_of

__all__ = ["POOL", "OnnxGraph", "float_model", "strip"]

_MASK = 3  # place of the mask among arguments of an attention

POOL = "/pool"
"""Suffix of the value before a mean's last reshape: it has the mean's encoding."""


def float_model(traced: Traced) -> onnx.ModelProto:
    """Float32 graph of the student; its input is normalised, channels first.

    Raises ConfigurationError naming the operator that can't be exported.
    """
    try:
        with _copying(traced.program.graph):
            program = torch.onnx.export(traced.program, dynamo=True, verbose=False)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = first_line(error.__cause__ or error)
        raise ConfigurationError.one(
            f"the {traced.student.family} student can't be written as ONNX: {reason}",
            "use operators of ONNX opset 20 in its forward pass, or another format",
        ) from error
    assert program is not None
    model = program.model_proto
    strip(model)
    _name_parameters(model.graph, traced)
    _name_values(model, traced)
    _pool_means(model.graph, traced)
    return model


@contextlib.contextmanager
def _copying(graph: fx.Graph) -> Iterator[None]:
    """Copy what every attention with a mask returns, meanwhile.

    torch's kernel returns other strides than the exporter's decomposition of it, and a reshape that is a view of the
    one can't be a view of the other.
    """
    attentions = [node for node in graph.nodes if node.op == "call_function" and _is_masked(node)]
    copies = []
    for node in attentions:
        with graph.inserting_after(node):
            copy = graph.call_function(
                torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
            )
        copy.meta = {**node.meta, "val": node.meta["val"].contiguous()}
        node.replace_all_uses_with(copy, lambda user, copy=copy: user is not copy)
        copies.append(copy)
    try:
        yield
    finally:
        for node, copy in zip(attentions, copies, strict=True):
            copy.replace_all_uses_with(node)
            graph.erase_node(copy)


def _is_masked(node: fx.Node) -> bool:
    """Tell whether a node is an attention with a mask."""
    attends = operator_of(node) == "scaled_dot_product_attention"
    return attends and len(node.args) > _MASK and node.args[_MASK] is not None


def _name_values(model: onnx.ModelProto, traced: Traced) -> None:
    """Rename values after the program's nodes, where computing nodes are missing or torch has shifted the names."""
    computing = {
        node.name: node
        for node in traced.program.graph.nodes
        if node.op == "call_function" and is_tensor(node) and not is_decoding(traced.keys.get(node.name, "decode:"))
    }
    made = [name for node in model.graph.node for name in node.output if name]
    if sum(isinstance(part, onnx.GraphProto) for part in _parts(model.graph)) > 1:
        return  # branches and loops read values of the graph around them
    if all(name in made for name, node in computing.items() if not spec_of(node).transparent):
        return
    source = next(node for node in traced.program.graph.nodes if traced.keys.get(node.name) == "input")
    batch = source.meta["val"].shape[0]
    sample = traced.student.task.input.random(0, batch if isinstance(batch, int) else 2)
    ours = node_values(traced, torch.from_numpy(sample))
    theirs = _values_of(model, made, sample)
    names: dict[str, str] = {}  # of the graph -> of the program
    for name in computing:
        if name not in ours:
            continue
        likely = [name, *theirs] if name in theirs else theirs
        found = next(
            (value for value in likely if value not in names and same_tensor(theirs[value], ours[name])),
            None,
        )
        if found is not None:
            names[found] = name
    taken = set(names.values())
    for value in made:  # whose name is another's now
        if value not in names and value in taken:
            names[value] = f"{value}/renamed"
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for output in model.graph.output:
        output.name = names.get(output.name, output.name)


def _values_of(model: onnx.ModelProto, names: Sequence[str], sample: NDArray[Any]) -> dict[str, Any]:
    """Float values of a graph for one input, in order."""
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    present = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(list(names), {shown.graph.input[0].name: sample}), strict=True))
    return {name: value for name, value in values.items() if getattr(value, "dtype", None) == np.float32}


def _name_parameters(graph: onnx.GraphProto, traced: Traced) -> None:
    """Rename initializers after the student's parameters, where it was exported inside a wrapper.

    A linear layer over several rows is a MatMul, whose weight the exporter has transposed under a name of its own.
    """
    signature = traced.program.graph_signature
    inside = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {inside[placeholder]: name for placeholder, name in traced.parameters.items() if placeholder in inside}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    taken = {tensor.name: tensor for tensor in graph.initializer}
    products = {node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in taken}
    matrices = {name: value for name, value in traced.student.module.named_parameters() if value.dim() == 2}
    for made_up in sorted(products - set(names.values())):
        stored = numpy_helper.to_array(taken[made_up])
        for name, value in matrices.items():
            if name not in taken and np.array_equal(stored, value.detach().numpy().T):
                taken[made_up].name = name
                taken[name] = taken.pop(made_up)
                for node in graph.node:
                    node.input[:] = [name if given == made_up else given for given in node.input]
                break


def _pool_means(graph: onnx.GraphProto, traced: Traced) -> None:
    """Replace means over the image, or over time, by global pools, for which ONNX Runtime has an integer kernel."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {node.name: node.args[0].meta["val"].dim() for node in traced.program.graph.nodes if _is_mean(node)}
    for place, node in enumerate(list(graph.node)):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        rank = ranks.get(node.output[0], 4)
        axes = sorted(int(axis) % rank for axis in numpy_helper.to_array(constants[node.input[1]]).ravel())
        drops = any(attribute.name == "keepdims" and attribute.i == 0 for attribute in node.attribute)
        if rank < 3 or axes != list(range(2, rank)) or not drops or node.output[0] + POOL in constants:
            continue
        pool = onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0] + POOL])
        flat = onnx.helper.make_node("Flatten", [node.output[0] + POOL], [node.output[0]], axis=1)
        node.CopyFrom(flat)
        graph.node.insert(place + sum(n.op_type == "GlobalAveragePool" for n in graph.node), pool)


def _is_mean(node: torch.fx.Node) -> bool:
    """Tell whether a node of the program is a mean of one tensor."""
    return node.op == "call_function" and is_tensor(node) and spec_of(node).name == "mean"


def strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's metadata: a third of a small file."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "edgekd", ""
    for part in _parts(model.graph):
        part.doc_string = ""
        del part.metadata_props[:]


def _parts(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        yield part
        for attribute in getattr(part, "attribute", ()):
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _parts(inner)


class OnnxGraph:
    """ONNX graph with its initializers at hand. Edits are in place; nodes are appended, then sorted by `finish`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}

    @property
    def input(self) -> str:
        """Name of the only input, until the I/O wrapper is put around the graph."""
        return str(self.graph.input[0].name)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in order."""
        return [str(value.name) for value in self.graph.output]

    @property
    def values(self) -> set[str]:
        """Names of all computed values, and the input."""
        return {name for node in self.graph.node for name in node.output} | {self.input}

    def array(self, name: str) -> NDArray[np.generic]:
        """Content of an initializer."""
        found: NDArray[np.generic] = numpy_helper.to_array(self.initializers[name])
        return found

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer, or replace the one with this name."""
        return self.add(numpy_helper.from_array(np.asarray(array, order="C"), name))

    def add(self, tensor: onnx.TensorProto) -> str:
        """Add an initializer, or replace the one with its name, which is returned."""
        if tensor.name in self.initializers:
            self.initializers[tensor.name].CopyFrom(tensor)
        else:
            self.graph.initializer.append(tensor)
            self.initializers[tensor.name] = self.graph.initializer[-1]
        return str(tensor.name)

    def drop(self, name: str) -> None:
        """Remove an initializer."""
        self.graph.initializer.remove(self.initializers.pop(name))

    def node(self, operator: str, inputs: list[str], output: str, *others: str, **attributes: Any) -> str:
        """Append a node with one output, or ``others`` too; returns the first one's name."""
        outputs = [output, *others]
        self.graph.node.append(onnx.helper.make_node(operator, inputs, outputs, name=f"{output}_node", **attributes))
        return output

    def redirect(self, old: str, new: str) -> None:
        """Let every present reader of ``old`` read ``new``."""
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def rename(self, old: str, new: str) -> None:
        """Give a value another name, everywhere."""
        if old == new:
            return
        self.redirect(old, new)
        for node in self.graph.node:
            for index, name in enumerate(node.output):
                if name == old:
                    node.output[index] = new
        for value in (*self.graph.input, *self.graph.output):
            if value.name == old:
                value.name = new

    def free(self, name: str) -> None:
        """Give whatever has a name, but the input, another one."""
        if name in self.initializers:
            tensor = self.initializers.pop(name)
            tensor.name = f"{name}/weights"
            self.initializers[tensor.name] = tensor
            self.redirect(name, tensor.name)
        elif name in self.values - {self.input}:
            self.rename(name, f"{name}/inner")

    def finish(self) -> onnx.ModelProto:
        """Sort nodes so that each follows what it reads, check, and return the model."""
        waiting, known = list(self.graph.node), {"", *self.initializers, *(value.name for value in self.graph.input)}
        ordered: list[onnx.NodeProto] = []
        while waiting:
            ready = [node for node in waiting if all(name in known for name in node.input)]
            if not ready:
                raise ValueError(f"the graph is not connected at {waiting[0].name}: {list(waiting[0].input)}")
            ordered += ready
            known |= {name for node in ready for name in node.output}
            taken = {id(node) for node in ready}
            waiting = [node for node in waiting if id(node) not in taken]
        copies = []
        for node in ordered:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        del self.graph.node[:]
        self.graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | set(self.outputs)
        for name in [name for name in self.initializers if name not in used]:
            self.drop(name)
        if any(tensor.data_type == onnx.TensorProto.INT4 for tensor in self.graph.initializer):
            self.model.opset_import[0].version = max(
                21, self.model.opset_import[0].version
            )  # the first that casts them
        onnx.checker.check_model(self.model)
        return self.model
