"""Record arrays of labels and outputs for several heads: one row for each sample, one field for each head or output.

Labels, one field for each head:

- classification: int64; -1 if unknown.
- segmentation: uint8 (H, W), the class of every pixel; 255 if ignored. A sample without a mask is all 255.
- detection: float32 (M, 6), a row for each object: x1, y1, x2, y2 in pixels, its class, and 1 if ignored (a crowd, or
  too hard to recognise). Rows without an object have class -1; a sample without boxes has -2 everywhere.
- multilabel: int8 (classes,), 1 if a label is present, 0 if not; -1 if unknown.
- regression: float32 (classes,), in the label's own units; NaN if unknown.

Outputs, one field for each output of the exported file:

- classification: ``NAME`` float32 (classes,), logits.
- segmentation: ``NAME`` uint8 (H, W), the most probable class of every pixel of the input.
- detection: ``NAME.boxes`` float32 (K, 4) in pixels, ``NAME.scores`` float32 (K,) descending, 0 for no further object,
  and ``NAME.classes`` int32 (K,).
- multilabel: ``NAME`` float32 (classes,), logits: above 0 if a label is more probably present.
- regression: ``NAME`` float32 (classes,), in the label's own units.

A file outputs a class map instead of logits: that is how they are used, and it is 4 x classes times smaller, so nothing
large is written at the end of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import HeadKind, HeadSpec, Rows, TaskSpec

__all__ = [
    "ABSENT",
    "IGNORED",
    "LABEL_DTYPES",
    "NOTHING",
    "OBJECT_FIELDS",
    "UNKNOWN",
    "Output",
    "empty_rows",
    "has_label",
    "label_rows",
    "output_rows",
    "outputs_of",
]

ABSENT = -1  # of a class, or of one of several labels
IGNORED = 255  # of a pixel
NOTHING, UNKNOWN = -1, -2  # class of a row of boxes: no object; not annotated
OBJECT_FIELDS = 6
LABEL_DTYPES: Mapping[HeadKind, type[np.generic]] = {
    "classification": np.int64,
    "segmentation": np.uint8,
    "detection": np.float32,
    "multilabel": np.int8,
    "regression": np.float32,
}


class Output(NamedTuple):
    """Output of an exported file, without its batch axis."""

    name: str
    dtype: str  # as numpy names it
    shape: tuple[int, ...]


def outputs_of(spec: TaskSpec) -> tuple[Output, ...]:
    """Return all outputs, in the file's order."""
    return tuple(output for head in spec.heads for output in _outputs(head, spec))


def output_rows(spec: TaskSpec, arrays: Sequence[NDArray[Any]]) -> Rows:
    """Return output rows from one array for each output, in order, each (N, ...). The array itself for a plain task."""
    if spec.plain:
        return np.asarray(arrays[0], np.float32)
    rows = empty_rows(spec, len(arrays[0]))
    for output, array in zip(outputs_of(spec), arrays, strict=True):
        rows[output.name] = array
    return rows


def empty_rows(spec: TaskSpec, count: int) -> Rows:
    """Allocate output rows for so many samples."""
    if spec.plain:
        return np.empty((count, spec.head.classes), np.float32)
    return np.empty(count, [(output.name, output.dtype, output.shape) for output in outputs_of(spec)])


def label_rows(spec_heads: Sequence[HeadSpec], fields: Mapping[str, NDArray[Any]]) -> Rows:
    """Return label rows from one array for each head, (N, ...). The array itself for one classification head."""
    if len(spec_heads) == 1 and spec_heads[0].kind == "classification":
        return np.asarray(fields[spec_heads[0].name], np.int64)
    dtype = [(head.name, LABEL_DTYPES[head.kind], fields[head.name].shape[1:]) for head in spec_heads]
    rows = np.empty(len(fields[spec_heads[0].name]), dtype)
    for head in spec_heads:
        rows[head.name] = fields[head.name]
    return rows


def has_label(head: HeadSpec, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (N,) of samples with this head's label, or one of its labels. ``labels`` is its field."""
    if head.kind == "classification":
        return np.asarray(labels != ABSENT)
    if head.kind == "segmentation":
        return np.asarray((labels != IGNORED).any(axis=(1, 2)))
    if head.kind == "multilabel":
        return np.asarray((labels != ABSENT).any(axis=1))
    if head.kind == "regression":
        return np.asarray((~np.isnan(labels)).any(axis=1))
    if not labels.shape[1]:
        return np.ones(len(labels), bool)
    return np.asarray(labels[:, 0, 4] != UNKNOWN)


def _outputs(head: HeadSpec, spec: TaskSpec) -> tuple[Output, ...]:
    if head.kind in ("classification", "multilabel", "regression"):
        return (Output(head.name, "float32", (head.classes,)),)
    if head.kind == "segmentation":
        return (Output(head.name, "uint8", tuple(spec.input.shape[1:])),)
    return (
        Output(f"{head.name}.boxes", "float32", (head.objects, 4)),
        Output(f"{head.name}.scores", "float32", (head.objects,)),
        Output(f"{head.name}.classes", "int32", (head.objects,)),
    )
