"""Answers of a loaded model to samples in .npy files: accuracy and parity are computed from these elsewhere."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, List, Sequence

import numpy as np

if TYPE_CHECKING:
    from edgekd.agent.runtimes.base import Runtime, Tensor

from edgekd.agent.runtimes.base import Refusal

__all__ = ["run_samples"]

_ALIVE_EVERY_S = 1.0


def run_samples(runtime: Runtime, paths: Sequence[str], folder: str, alive: Callable[[], None]) -> List[str]:
    """Run every sample; returns one .npy path an output, its first axis the samples. Raises Refusal on a bad shape.

    The model's own batch is the first axis of its inputs: samples are taken so many at a time, and the last ones are
    filled up with copies whose answers are dropped.
    """
    tensors = runtime.inputs()
    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
    if len(arrays) != len(tensors):
        raise Refusal("the model has %d inputs, %d were given" % (len(tensors), len(arrays)))
    count, batch = _count(arrays), _batch(tensors)
    for tensor, array in zip(tensors, arrays):
        if array.dtype.name != tensor.dtype or tuple(array.shape[1:]) != tensor.shape[1:]:
            raise Refusal(
                "input `%s` should be %s samples of %s, found %s samples of %s"
                % (tensor.name, tensor.dtype, tensor.shape[1:], array.dtype.name, tuple(array.shape[1:]))
            )
    pieces: List[List[np.ndarray[Any, Any]]] = []
    reported = time.monotonic()
    for start in range(0, count, batch):
        taken = np.minimum(np.arange(start, start + batch), count - 1)
        runtime.prepare([np.ascontiguousarray(array[taken]) for array in arrays])
        runtime.call()
        kept = min(batch, count - start)
        pieces.append([_rows(output, batch)[:kept] for output in runtime.read()])
        if time.monotonic() - reported > _ALIVE_EVERY_S:
            reported = time.monotonic()
            alive()
    written: List[str] = []
    for index, outputs in enumerate(zip(*pieces)):
        path = os.path.join(folder, "output-%d.npy" % index)
        np.save(path, np.concatenate(outputs), allow_pickle=False)
        written.append(path)
    return written


def _count(arrays: Sequence[np.ndarray[Any, Any]]) -> int:
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    if len(counts) != 1 or 0 in counts:
        raise Refusal("inputs should hold the same number of samples, at least one; found %s" % sorted(counts))
    return int(counts.pop())


def _batch(tensors: Sequence[Tensor]) -> int:
    batches = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
    if len(batches) != 1 or 0 in batches:
        raise Refusal("inputs should share their first axis, the batch; found %s" % sorted(batches))
    return int(batches.pop())


def _rows(output: np.ndarray[Any, Any], batch: int) -> np.ndarray[Any, Any]:
    if output.ndim and output.shape[0] == batch:
        return output
    if batch == 1:
        return output[None]
    raise Refusal("an output of shape %s has no axis for a batch of %d" % (output.shape, batch))
