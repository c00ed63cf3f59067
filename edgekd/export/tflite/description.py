"""Description of an image classifier inside its TFLite file, as MediaPipe Tasks reads it.

The metadata entry ``TFLITE_METADATA`` states input and output by TensorFlow Lite's metadata schema: color space,
normalisation in raw units, range, and the file of labels, which is in a zip archive behind the flatbuffer. Runtimes
read neither the entry nor the archive.
Source: metadata_schema.fbs, parser version 1.0.0, as the mediapipe package ships it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.export._protocol import ExportOptions
from edgekd.export.tflite.flatbuffer import read_model, set_metadata, write_model
from edgekd.tasks._protocol import TaskSpec

__all__ = ["LABELS", "can_describe", "describe"]

LABELS = "labels.txt"
_ENTRY, _IDENTIFIER, _PARSER = "TFLITE_METADATA", b"M001", "1.0.0"
_COLOR_SPACES = {3: 1, 1: 2}  # RGB, GRAYSCALE by channels
_IMAGE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_PIXELS = (0.0, 255.0)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same file each time


def can_describe(task: TaskSpec, options: ExportOptions) -> bool:
    """Tell whether the schema can describe a file: one 8-bit picture (1, H, W, C) of 0 to 255 in, one class out.

    An integer input that the caller normalises and quantizes can't be described.
    """
    given = task.input
    pictures = given.is_image and given.raw_dtype == "uint8" and given.raw_range == _PIXELS
    taken = (options.input, options.preprocess) in (("uint8", "fold"), ("float32", "fold"), ("float32", "stated"))
    laid = options.layout == "nhwc" and options.batch == 1 and given.shape[0] in _COLOR_SPACES
    return task.plain and pictures and taken and laid


def describe(path: Path, task: TaskSpec, options: ExportOptions) -> None:
    """Write the description into a file, replacing an earlier one; see `can_describe`."""
    model = read_model(path.read_bytes())
    set_metadata(model, _ENTRY, _packed(_description(task, options)))
    archive = io.BytesIO(write_model(model))
    if task.head.labels:
        lines = [" ".join(name.splitlines()) for name in task.head.labels]
        with zipfile.ZipFile(archive, "a") as attached:
            attached.writestr(zipfile.ZipInfo(LABELS, _EPOCH), "\n".join(lines))
    path.write_bytes(archive.getvalue())


def _description(task: TaskSpec, options: ExportOptions) -> Mapping[int, Any]:
    """The metadata as tables: values by the number of their field."""
    given, head = task.input, task.head
    stated = options.preprocess == "stated"  # else the file takes raw values
    values = np.broadcast_arrays(*(np.asarray(v, np.float32) for v in ((given.mean, given.std) if stated else (0, 1))))
    one = all(len({*each.flat}) == 1 for each in values)  # MediaPipe takes no values by channel
    mean, std = (np.atleast_1d(each)[: 1 if one else None].copy() for each in values)
    image = {
        0: given.name,
        1: f"image, {given.shape[1]} x {given.shape[2]} pixels",
        3: {0: _IMAGE_PROPERTIES, 1: {0: _COLOR_SPACES[given.shape[0]]}},
        4: [{0: _NORMALIZATION, 1: {0: mean, 1: std}}],
        5: {0: (_PIXELS[1] - mean) / std, 1: (_PIXELS[0] - mean) / std},
    }
    labels = [{0: LABELS, 1: "names of the classes, in order", 2: _AXIS_LABELS}]
    logits = {0: head.name, 1: f"logits of {head.classes} classes", **({6: labels} if head.labels else {})}
    return {0: task.name, 3: [{2: [image], 3: [logits]}], 7: _PARSER}


def _packed(root: Mapping[int, Any]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, root), _IDENTIFIER)
    return bytes(builder.Output())


def _written(builder: Any, value: Any) -> int:
    """Write a text, a vector of numbers or of tables, or a table; return its offset. An int in a table is one byte."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, list):
        offsets = [_written(builder, each) for each in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    inside = {slot: _written(builder, each) for slot, each in value.items() if not isinstance(each, int)}
    builder.StartObject(max(value) + 1)
    for slot, each in value.items():
        if slot in inside:
            builder.PrependUOffsetTRelativeSlot(slot, inside[slot], 0)
        else:
            builder.PrependInt8Slot(slot, each, 0)
    return int(builder.EndObject())
