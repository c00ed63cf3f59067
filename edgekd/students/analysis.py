"""Static analysis of a network: parameters, multiply-adds, bytes, and peak activation memory, without running it.

A forward pass at batch 1 on tensors without values gives every operator with its shapes. Counting follows how runtimes
execute: BatchNorm folded, ReLU inside the operator before it, reshapes free. Nothing else is assumed; a runtime that
keeps more alive (layout changes, scratch) has a larger peak. The decoder of several heads' raw outputs isn't counted.
Evidence kind: analytic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from edgekd.ir.features import StaticFeatures
from edgekd.ir.kernels import Kernel, KernelKind, Kernels
from edgekd.ir.numerics import Precision
from edgekd.ir.operators import OperatorKind, aten_operator, kernel_kind
from edgekd.ir.space import Arch
from edgekd.records import Digest
from edgekd.students._protocol import CutOut, Family, Student
from edgekd.students.pruned_shapes import CutTraces
from edgekd.students.traced import Operator, Shape, Trace, trace
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Part", "analyse", "analyse_arch", "kernels_of", "kernels_of_arch", "parts_of_arch", "why_one_by_one"]


def analyse(student: Student, precision: Precision) -> StaticFeatures:
    """Return the static features of a student at a precision."""
    return _counted(student.module, student.task).at(precision)


def analyse_arch(family: Family, arch: Arch, spec: TaskSpec, precision: Precision) -> StaticFeatures:
    """Return the static features of an arch, without weights unless the family inherits them. Cached."""
    return _counted_arch(_asked(family, arch, spec)).at(precision)


def kernels_of(student: Student) -> Kernels:
    """Return the kernels of a student, as runtimes fuse them."""
    return _counted(student.module, student.task).kernels


def kernels_of_arch(family: Family, arch: Arch, spec: TaskSpec) -> Kernels:
    """Return the kernels of an arch. Cached with its static features."""
    return _counted_arch(_asked(family, arch, spec)).kernels


@dataclass(frozen=True)
class Part:
    """Kernel of an arch with the module that runs it. Summed over all, counts equal the arch's static features."""

    module: str
    kind: KernelKind
    outputs: int  # channels
    macs: int
    moved: int  # elements of activations read and written
    weights: int  # elements, with biases; those of a shared tensor are its first reader's


def parts_of_arch(family: Family, arch: Arch, spec: TaskSpec) -> Sequence[Part]:
    """Return the parts of an arch, in order of execution."""
    found = _traced_arch(_asked(family, arch, spec), located=True)
    operators = [_operator(operator, found.parameters) for operator in found.operators]
    fused = _fused(operators, found.parameters)
    sizes, counted, parts = _sizes_of(fused.kept, found.source_size), set[str](), list[Part]()
    for operator in fused.kept:
        own = {key: size for key, size in operator.weights.items() if key not in fused.folded | counted}
        counted |= set(own)
        parts.append(
            Part(
                module=operator.module,
                kind=_kind(operator),
                outputs=operator.shape[1] if len(operator.shape) > 1 else 1,
                macs=operator.macs,
                moved=operator.size + sum(sizes.get(buffer, 0) for buffer in operator.reads),
                weights=sum(own.values()) + fused.biases.get(operator.writes, 0),
            )
        )
    return parts


@dataclass(frozen=True)
class _Asked:
    name: str
    options: Digest
    arch: Arch
    task: Digest
    family: Family = field(compare=False)
    spec: TaskSpec = field(compare=False)


def _asked(family: Family, arch: Arch, spec: TaskSpec) -> _Asked:
    identity = family.digest() if hasattr(family, "digest") else repr(family)
    return _Asked(family.name, identity, arch, spec.digest(), family, spec)


@lru_cache(maxsize=8192)
def _counted_arch(asked: _Asked) -> _Counts:
    return _counts(_traced_arch(asked))


def _traced_arch(asked: _Asked, located: bool = False) -> Trace:
    family, arch, spec = asked.family, asked.arch, asked.spec
    with torch.random.fork_rng(devices=[]):
        if isinstance(family, CutOut):
            traces = _cut_traces(_whole(asked))
            if isinstance(traces, CutTraces):
                return traces.of(family.cut(arch, spec))
        if family.inherits:
            return trace(family.build(arch, spec), spec.input, located=located)
        with torch.device("meta"), _Uninitialised():
            return trace(family.build(arch, spec), spec.input, located=located)


class _Uninitialised(TorchFunctionMode):
    """Mode in which new weights are not drawn, since the tensors have no values."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def why_one_by_one(family: Family, spec: TaskSpec) -> str:
    """Return why each arch of a cut-out family is traced separately, which takes longer; or ``""``."""
    if not isinstance(family, CutOut):
        return ""
    with torch.random.fork_rng(devices=[]):
        found = _cut_traces(_whole(_asked(family, Arch.of({}), spec)))
    return found if isinstance(found, str) else ""


def _whole(asked: _Asked) -> _Asked:
    return replace(asked, arch=Arch.of({}))


@lru_cache(maxsize=4)
def _cut_traces(asked: _Asked) -> CutTraces | str:
    """Return a follower that derives the shapes of all archs from a few traces; a reason if that fails."""
    assert isinstance(asked.family, CutOut)
    family, spec = asked.family, asked.spec
    space = family.space(spec)
    ends = [space.at(0), space.at(space.size // 2)]
    try:
        traces = CutTraces.over(family.whole(spec), spec.input)
    except ValueError as error:  # its operators are not the same ones at another size
        return str(error)
    right = all(_counts(traces.of(family.cut(arch, spec))) == _counted(family.build(arch, spec), spec) for arch in ends)
    return traces if right else "its sizes are no sums of those of its groups"


_TABLE = "embedding"  # its rows are taken, not multiplied; integers of all have one scale


@dataclass(frozen=True)
class _Counts:
    """Counts in elements, before a precision converts them to bytes."""

    weights: int  # of convolutions and linear layers
    constants: int  # of modules that compute in float at every precision, stored as float16
    others: int  # biases, and parameters that couldn't be folded
    channels: int  # output channels of weighted operators: a scale each
    macs: int
    peak: int
    moved: int  # activations read and written
    depth: int
    kernels: Kernels

    def at(self, precision: Precision) -> StaticFeatures:
        scales = 4 * self.channels if precision.weights.is_integer else 0
        others = 4 if precision.weights.is_integer else precision.weights.bits // 8  # biases of integers are 32 bits
        weight_bytes = self.weights * precision.weights.bits // 8 + self.others * others + scales
        weight_bytes += 2 * self.constants
        activation = precision.activations.bits // 8
        return StaticFeatures(
            parameters=self.weights + self.constants + self.others,
            macs=self.macs,
            weight_bytes=weight_bytes,
            peak_activation_bytes=self.peak * activation,
            bytes_moved=self.moved * activation + weight_bytes,
            depth=self.depth,
        )


@dataclass
class _Operator:
    name: str
    kind: OperatorKind
    reads: list[int]  # activations
    writes: int
    size: int  # elements of the result
    weights: dict[str, int]  # name of each parameter -> its elements
    macs: int
    channels: int
    shape: Shape  # of the result
    filters: Shape  # shape of a weighted operator's weights
    stride: int
    source: Shape  # shape of the first tensor read
    module: str
    inner: int = 0  # of a product of matrices: how many products each number of the result sums up


def _operator(traced: Operator, parameters: Mapping[str, Shape]) -> _Operator:
    name, given, shape = traced.name, traced.given, traced.shape
    kind = aten_operator(name).kind
    filters = _filters(kind, given)
    weights = {parameter: math.prod(parameters[parameter]) for parameter, _ in given if parameter}
    shapes = [its for _, its in given]
    return _Operator(
        name=name,
        kind=kind,
        reads=list(traced.reads),
        writes=traced.writes,
        size=math.prod(shape),
        weights=weights,
        macs=_macs(name, kind, shapes, shape),
        channels=shape[1 if kind == "conv" else -1] if filters and weights else int(name == _TABLE),
        shape=shape,
        filters=filters,
        stride=traced.stride,
        source=next((its for parameter, its in given if not parameter), ()),
        module=traced.module,
        inner=shapes[-2][-1] if kind == "dense" else 0,
    )


def _filters(kind: OperatorKind, given: Sequence[tuple[str, Shape]]) -> Shape:
    """Return the shape of an operator's weight; empty if it has none, as a product of two activations."""
    if kind == "conv":
        return given[1][1]
    matrices = [its for parameter, its in given if parameter and len(its) > 1]
    return matrices[0] if kind == "dense" and matrices else ()


def _counted(module: nn.Module, spec: TaskSpec) -> _Counts:
    return _counts(trace(module, spec.input))


def _counts(found: Trace) -> _Counts:
    operators = [_operator(operator, found.parameters) for operator in found.operators]
    return _count(operators, found.source_size, found.answers, found.parameters, found.constants)


@dataclass(frozen=True)
class _Fused:
    """Operators that remain as kernels after fusion, and how the others were fused."""

    kept: list[_Operator]
    same: dict[int, int]  # activation -> the one it is fused into
    folded: set[str]  # parameters of BatchNorms that went into weights
    biases: dict[int, int]  # elements that folding added, by the kernel's result


def _fused(operators: Sequence[_Operator], parameters: Mapping[str, Shape]) -> _Fused:
    readers = Counter(buffer for operator in operators for buffer in set(operator.reads))
    producer: dict[int, _Operator] = {}
    same: dict[int, int] = {}
    kept: list[_Operator] = []
    folded: set[str] = set()
    biases: dict[int, int] = {}
    for operator in operators:
        operator.reads = [same.get(buffer, buffer) for buffer in operator.reads]
        before = producer.get(operator.reads[0]) if operator.reads else None
        alone = bool(operator.reads) and readers[operator.reads[0]] == 1
        folds = operator.name == "batch_norm" and before is not None and _takes_norm(before) and alone
        if folds and before is not None:
            folded |= set(operator.weights)
            if 1 not in [len(parameters[key]) for key in before.weights]:
                biases[before.writes] = biases.get(before.writes, 0) + before.channels
        if folds or (operator.kind == "clamp" and len(operator.reads) == 1 and before is not None and alone):
            same[operator.writes] = operator.reads[0]
            readers[operator.reads[0]] = readers[operator.writes]
            continue
        kept.append(operator)
        producer[operator.writes] = operator
    return _Fused(kept, same, folded, biases)


def _count(
    operators: Sequence[_Operator],
    source_size: int,
    answers: Sequence[int],
    parameters: Mapping[str, Shape],
    kept_float: AbstractSet[str],
) -> _Counts:
    fused = _fused(operators, parameters)
    kept, same, folded = fused.kept, fused.same, fused.folded
    used = {key: size for operator in kept for key, size in operator.weights.items() if key not in folded}
    matrices = {
        k: s for op in kept if op.filters or op.name == _TABLE for k, s in op.weights.items() if len(parameters[k]) > 1
    }
    constants = sum(size for key, size in used.items() if key in kept_float)
    weights = sum(size for key, size in matrices.items() if key not in kept_float)
    counted: set[str] = set()
    channels = 0
    for operator in kept:
        if not (counted | kept_float).issuperset(operator.weights):
            channels += operator.channels
            counted |= set(operator.weights)
    return _Counts(
        weights=weights,
        constants=constants,
        others=sum(used.values()) - weights - constants + sum(fused.biases.values()),
        channels=channels,
        macs=sum(operator.macs for operator in kept),
        peak=_peak(kept, source_size, [same.get(answer, answer) for answer in answers]),
        moved=_moved(kept, source_size),
        depth=_depth(kept),
        kernels=_kernels(kept, source_size),
    )


def _kernels(operators: Sequence[_Operator], source_size: int) -> Kernels:
    sizes = _sizes_of(operators, source_size)
    return tuple(_kernel(operator, sum(sizes.get(buffer, 0) for buffer in operator.reads)) for operator in operators)


def _kernel(operator: _Operator, reads: int) -> Kernel:
    shape, source = operator.shape, operator.source
    height, width = (*shape[2:], 1, 1)[:2]
    if operator.inner:  # a matrix product: rows by columns
        height, width = operator.size // shape[-1], 1
    return Kernel(
        kind=_kind(operator),
        inputs=operator.inner or (source[1] if len(source) > 1 else 1),
        outputs=shape[-1] if operator.inner else shape[1] if len(shape) > 1 else 1,
        height=height,
        width=width,
        taps=math.prod(operator.filters[2:]),
        stride=operator.stride,
        macs=operator.macs,
        reads=reads,
        writes=operator.size,
        weights=math.prod(operator.filters) if operator.filters else 0,  # without biases
    )


def _kind(operator: _Operator) -> KernelKind:
    if operator.kind == "conv" and operator.filters[1] == 1 and operator.source[1] == operator.shape[1] > 1:
        return "depthwise"
    return kernel_kind(operator.kind)


def _takes_norm(operator: _Operator) -> bool:
    """Return whether a following BatchNorm folds into the weight: both have their channels on the second axis."""
    return bool(operator.filters) and (operator.kind == "conv" or len(operator.shape) == 2)


def _peak(operators: Sequence[_Operator], source_size: int, answers: Sequence[int]) -> int:
    """Return the largest number of elements alive at once: a result lives until its last reader."""
    sizes = {0: source_size} | {operator.writes: operator.size for operator in operators}
    last = {buffer: index for index, operator in enumerate(operators) for buffer in operator.reads}
    last |= dict.fromkeys(answers, len(operators))
    alive, peak = {0}, source_size
    for index, operator in enumerate(operators):
        alive.add(operator.writes)
        peak = max(peak, sum(sizes.get(buffer, 0) for buffer in alive))
        alive = {buffer for buffer in alive if last.get(buffer, -1) > index}
    return peak


def _sizes_of(operators: Sequence[_Operator], source_size: int) -> dict[int, int]:
    """Return the number of elements of each activation."""
    return {0: source_size} | {operator.writes: operator.size for operator in operators}


def _moved(operators: Sequence[_Operator], source_size: int) -> int:
    sizes = _sizes_of(operators, source_size)
    return sum(operator.size + sum(sizes.get(buffer, 0) for buffer in operator.reads) for operator in operators)


def _depth(operators: Sequence[_Operator]) -> int:
    depth: dict[int, int] = {}
    for operator in operators:
        depth[operator.writes] = 1 + max((depth.get(buffer, 0) for buffer in operator.reads), default=0)
    return max(depth.values(), default=0)


def _macs(name: str, kind: OperatorKind, given: Sequence[Shape], made: Shape) -> int:
    if kind == "conv":  # a transposed one has its window at each place of its input
        return math.prod(given[0] if name == "conv_transpose" else made) * math.prod(given[1][1:])
    if kind == "dense":
        return math.prod(made) * given[-2][-1]
    return 0
