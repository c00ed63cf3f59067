"""Calibration: finds the encodings (scale and zero point) of a folded student's tensors.

8-bit activations are affine in signed storage, so the output of a ReLU starts at -128; 16-bit ones are symmetric. Three
methods of choosing a range:

- ``minmax``: all observed values.
- ``percentile``: all but the outermost 0.01 % (by default) of values, on each side.
- ``mse``: the range with the least expected squared error of rounding and clipping, of 61 that shrink both ends alike.

Works on untrained weights too: a search times candidates before it trains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.observe import BINS, ObservedRange, observe
from edgekd.compress.quantization.placement import float_operators, kept_operators
from edgekd.compress.quantization.precision_support import problems_with, weight_limit
from edgekd.compress.quantization.rules import RoundingPoints, points_of
from edgekd.compress.quantization.tables import on_grid, table_encodings
from edgekd.compress.quantization.weights import floors, weight_encoding
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Diverged
from edgekd.ir.encoding import Annotations, Encoding
from edgekd.ir.numerics import A8, Precision, TensorType
from edgekd.students._protocol import Student
from edgekd.students.fold import folded
from edgekd.students.graph import Traced, operator_in, trace
from edgekd.students.weights import tie_equal_weights
from edgekd.tasks._protocol import InputSpec
from edgekd.teachers.cache import shared
from edgekd.teachers.normalise import normalised

__all__ = ["Method", "activation_encoding", "calibrate", "least_scales"]

Method = Literal["minmax", "percentile", "mse"]


def calibrate(
    student: Student,
    inputs_raw: NDArray[np.generic],
    precision: Precision,
    method: Method = "percentile",
    fingerprint: Fingerprint | None = None,
    backend: Backend | None = None,
    *,
    percentile: float = 99.99,
    keep_float: Sequence[str] = (),
    weight_bits: int = 8,
) -> Student:
    """Fold and annotate a student. ``inputs_raw`` is (N, C, H, W) in raw units; only static precisions use it.

    ``keep_float``: patterns of operators that int8 leaves in float, in addition to those without an integer form.
    ``weight_bits``: weights of fewer bits than the precision's are still stored in its own.

    Raises ConfigurationError if the student can't have the precision, naming the operator that prevents it, and
    Diverged if its values aren't finite.
    """
    if precision is Precision.FLOAT32:  # needs no graph, which takes seconds of a large model
        if problems := problems_with(student, precision, backend):
            raise ConfigurationError(problems)
        return folded(student).but(annotations=Annotations(precision=precision))
    tied = folded(student)
    tie_equal_weights(tied.module)
    traced = trace(tied, dynamic_batch=precision.is_static, decomposed=False)
    if problems := problems_with(student, precision, backend, traced, keep_float):
        raise ConfigurationError(problems)
    flat = traced.student
    if not precision.weights.is_integer:
        return flat.but(module=_halved(flat.module), annotations=Annotations(precision=precision))
    floats = float_operators(traced, keep_float) if precision.is_static else {}
    points, state = points_of(traced, floats.keys() | kept_operators(traced)), _parameters(traced)
    most = weight_limit(precision.weights, backend, fingerprint)
    limit, tables = min(most, 2 ** (weight_bits - 1) - 1), table_encodings(traced, state, most, precision.weights.bits)
    on_grid(flat.module, tables)  # a copy already
    if not precision.is_static:
        plain = dict[str, Encoding]()
        for name, keys in sorted(points.users.items()):
            linear = all(operator_in(key) == "linear" for key in keys)
            stored = (precision.scheme.linear if linear else None) or precision.weights
            plain[name] = weight_encoding(
                state[name], min(limit, stored.highest), axis=points.axes[name], bits=stored.bits
            )
        return flat.but(annotations=Annotations(precision=precision, weights={**plain, **tables}))
    if not len(inputs_raw):
        raise ConfigurationError.one(
            f"{precision.value} needs calibration samples, and there are none", "give the task a calibration split"
        )
    spec = student.task.input
    batch = shared(np.ascontiguousarray(inputs_raw))
    inputs = batch if spec.text is not None else normalised(batch, spec.mean, spec.std)
    try:
        seen = observe(traced, points, inputs, histogram=method != "minmax")
    except ValueError as error:
        raise Diverged(f"calibration: {error}", "train the student again with a lower learning rate") from error
    kind = precision.activations
    chosen = {g: activation_encoding(*_range(entry, method, percentile, kind), kind) for g, entry in seen.items()}
    own = points.group.get("input")  # None where float operators alone read it
    if own is not None:
        raw = _raw_encoding(spec, seen[own]) if kind == A8 else None
        chosen[own] = raw or activation_encoding(seen[own].low, seen[own].high, kind)
    encodings = {key: chosen[group] for key, group in sorted(points.group.items())}
    scales = {key: found.scale[0] for key, found in encodings.items()}
    how = f"percentile {percentile:g}" if method == "percentile" else method
    return flat.but(
        annotations=Annotations(
            precision=precision,
            weights={
                name: weight_encoding(state[name], limit, least, points.axes[name], precision.weights.bits)
                for name, least in least_scales(traced, points, scales, state).items()
            }
            | tables,
            activations={key: found for key, found in encodings.items() if key not in points.passing},
            float_operators=tuple(floats),
            calibration=f"{how} over {len(inputs)} samples",
        )
    )


def activation_encoding(low: float, high: float, kind: TensorType = A8) -> Encoding:
    """Return the encoding of a range, widened to represent zero exactly: affine, or symmetric about zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    if kind.symmetric:
        low, high = min(low, -high), max(high, -low)
    scale = float(np.float32((high - low) / (kind.highest - kind.lowest))) if high > low else 1.0 / 256
    scale = scale or float(np.finfo(np.float32).tiny)
    if kind.symmetric:
        return Encoding(bits=kind.bits, scale=(scale,), zero_point=(0,), limit=kind.highest)
    zero_point = int(np.clip(np.rint(kind.lowest - low / scale), kind.lowest, kind.highest))
    return Encoding(bits=kind.bits, scale=(scale,), zero_point=(zero_point,))


def _raw_encoding(spec: InputSpec, seen: ObservedRange) -> Encoding | None:
    """Return the encoding whose integers are the raw bytes less 128: lossless, and normalisation costs nothing.

    None if the bytes have no such encoding, or if it would clip tensors that share the input's encoding (features
    concatenated with it).
    """
    one = len(set(spec.mean)) == 1 == len(set(spec.std))
    if spec.raw_dtype != "uint8" or not one or not 0 <= spec.mean[0] <= 255:
        return None
    if seen.low * spec.std[0] < -spec.mean[0] - 1 or seen.high * spec.std[0] > 255 - spec.mean[0] + 1:
        return None
    scale = float(np.float32(1.0 / spec.std[0]))
    return Encoding(bits=8, scale=(scale,), zero_point=(round(spec.mean[0]) - 128,))


def _range(entry: ObservedRange, method: Method, percentile: float, kind: TensorType) -> tuple[float, float]:
    total = float(entry.counts.sum())
    if method == "minmax" or entry.high <= entry.low or not total:
        return entry.low, entry.high
    edges = np.linspace(entry.low, entry.high, BINS + 1)
    if method == "percentile":
        below = np.cumsum(entry.counts) / total
        cut = 1 - percentile / 100
        first = int(np.searchsorted(below, cut, side="right"))
        last = int(np.searchsorted(below, 1 - cut, side="left"))
        return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])
    centres = (edges[:-1] + edges[1:]) / 2
    candidates = [(entry.low * share, entry.high * share) for share in np.linspace(1.0, 0.4, 61)]
    return min(candidates, key=lambda ends: _error(centres, entry.counts, activation_encoding(ends[0], ends[1], kind)))


def _error(values: NDArray[np.float64], counts: NDArray[np.float64], encoding: Encoding) -> float:
    scale, zero, low, high = encoding.scale[0], encoding.zero_point[0], encoding.lowest, encoding.highest
    back = (np.clip(np.rint(values / scale) + zero, low, high) - zero) * scale
    clipped = (values < (low - zero) * scale) | (values > (high - zero) * scale)
    # inside, rounding's own variance: bins are too few to see it, and zero, the commonest value, is exact
    zeros = np.abs(values) < 0.51 * (values[1] - values[0])  # the bin that holds zero, of which values are the centres
    error = np.where(clipped, (values - back) ** 2, np.where(zeros, 0.0, scale**2 / 12))
    return float((counts * error).sum())


def least_scales(
    traced: Traced, points: RoundingPoints, scales: Mapping[str, float], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the least scale of each output channel of each weight that computes in integers (see `floors`).

    ``scales`` are the activations', by key; ``state`` has weights and biases.
    """
    nodes = {node.name: node for node in traced.program.graph.nodes}
    found = dict[str, Tensor]()
    for name, keys in sorted(points.users.items()):
        channels = state[name].shape[points.axes[name]]
        for key in keys:
            node = nodes[traced.nodes[key]]
            after = traced.keys[next(iter(node.users)).name] if key in points.fused else key
            bias = state.get(points.weights[key][1])
            least = floors(bias, channels, scales[traced.keys[node.args[0].name]], scales[after])
            found[name] = torch.maximum(found[name], least) if name in found else least
    return found


def _parameters(traced: Traced) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in traced.student.module.state_dict().items()}


def _halved(module: nn.Module) -> nn.Module:
    """Round every parameter of the module (already a copy) to half precision."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    return module
