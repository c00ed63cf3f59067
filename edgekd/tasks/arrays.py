"""Conversion of a person's arrays to labelled images: detects the layout, checks types and labels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.blocks import blocks
from edgekd.tasks.labelled import LabelledImages
from edgekd.tasks.vectors import array_error, vector_rows

__all__ = ["Layout", "images_of", "layout_of"]

Layout = Literal["auto", "nchw", "nhwc", "nct", "ntc"]
"""Axes of arrays; the last two are signals. ``auto``: (N, H, W) and (N, H, W, C) or (N, C, H, W) are images."""

_CHANNELS = (1, 3, 4)
_HIGHEST = np.iinfo(np.int64).max  # of uint64 labels, 2^64 - 1 is a common mark for "no label"


def images_of(inputs: NDArray[Any], labels: NDArray[Any], layout: Layout, where: str) -> LabelledImages:
    """Return images (N, C, H, W) or signals (N, C, T), a view of ``inputs`` if its byte order is this machine's.

    Labels are int64, or records (`vectors`) for (N, C).

    Raises ConfigurationError unless inputs are uint8 or finite float32 (N, H, W), (N, H, W, C) or (N, C, H, W), and
    labels are integers (N,) from 0, or integers 0 and 1 or floats (N, C). Signals, selected by `layout`, are (N, T),
    (N, C, T) or (N, T, C).
    """
    if inputs.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise array_error(where, f"samples are {inputs.dtype} {inputs.shape}", _remedy_of_type(inputs))
    inputs = inputs.astype(inputs.dtype.newbyteorder("="), copy=False)
    if labels.ndim == 2 and labels.shape[1] == 1 and np.issubdtype(labels.dtype, np.integer):
        labels = labels[:, 0]
    several = labels.ndim == 2 and labels.shape[1] > 0
    if not several and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        expected = "one whole number a sample expected, from 0; (N, C) integers 0 and 1 for multilabel,"
        expected += " (N, C) floats for regression"
        raise array_error(where, f"labels are {labels.dtype} {labels.shape}", expected)
    if len(inputs) != len(labels):
        raise array_error(
            where, f"there are {len(inputs)} samples and {len(labels)} labels", "one label a sample expected"
        )
    if not len(labels):
        raise array_error(where, "there are no samples", "give some")
    if not several and (outside := np.flatnonzero((labels < 0) | (labels > _HIGHEST))).size:
        raise array_error(where, f"label {outside[0]} is {labels[outside[0]]}", "labels are counted from 0")
    if layout in ("nct", "ntc"):
        images: NDArray[Any] = _signals(inputs, layout == "ntc", where)
    elif inputs.ndim == 3:
        images = inputs[:, None]
    elif layout_of(inputs, layout, where) == "nhwc":
        images = inputs.transpose(0, 3, 1, 2)
    else:
        images = inputs
    if inputs.dtype == np.float32:
        for block in blocks(inputs):
            if not np.isfinite(inputs[block]).all():
                raise array_error(where, "samples hold NaN or infinity", "finite values expected")
    return LabelledImages(images, vector_rows(labels, where) if several else labels.astype(np.int64))


def _signals(inputs: NDArray[Any], last: bool, where: str) -> NDArray[Any]:
    """Return signals (N, C, T). Raises ConfigurationError for arrays with other axes."""
    if inputs.ndim not in (2, 3):
        raise array_error(where, f"signals are {inputs.shape}", "(N, T), (N, C, T) or (N, T, C) expected")
    if inputs.ndim == 2:
        return inputs[:, None]
    return inputs.transpose(0, 2, 1) if last else inputs


def layout_of(inputs: NDArray[Any], layout: Layout, where: str) -> Literal["nchw", "nhwc"]:
    """Return the layout of images (N, ., ., .). Raises ConfigurationError if it is ambiguous."""
    if inputs.ndim != 4:
        raise array_error(
            where,
            f"images are {inputs.shape}",
            "(N, H, W, C), (N, C, H, W) or (N, H, W) expected; of signals say `layout: nct` or `layout: ntc`",
        )
    if layout == "nchw" or layout == "nhwc":  # as a type checker reads it
        return layout
    first, last = inputs.shape[1] in _CHANNELS, inputs.shape[3] in _CHANNELS
    if first == last:
        raise array_error(
            where, f"images are {inputs.shape}: channels first or last?", "say `layout: nchw` or `layout: nhwc`"
        )
    return "nchw" if first else "nhwc"


def _remedy_of_type(inputs: NDArray[Any]) -> str:
    """Return the remedy for samples that are neither uint8 nor float32."""
    if np.issubdtype(inputs.dtype, np.integer) and inputs.dtype.itemsize >= 4 and inputs.ndim == 2:
        return "whole numbers (N, T) are tokens: give the texts themselves, to a task of kind text-classification"
    if inputs.dtype.newbyteorder("=") == np.int16:
        return "uint8 or float32 expected: of 16-bit audio give (x / 32768).astype('float32')"
    return "uint8 or float32 expected: convert them with astype"
