"""Kernels of an OpenVINO .xml file (IR version 10 and later)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgekd.export.kernels.graph import FileOperator, Shape, fused, without_batch
from edgekd.ir.kernels import Kernels
from edgekd.ir.operators import OPENVINO, operator_kind

__all__ = ["openvino_kernels"]


def openvino_kernels(path: Path) -> Kernels:
    """Kernels of the model. Raises ValueError on a damaged file or shapes that aren't fixed; OSError."""
    try:
        root = ElementTree.parse(path).getroot()
        layers = root.findall("./layers/layer")
        made_by = {
            (edge.attrib["to-layer"], edge.attrib["to-port"]): (edge.attrib["from-layer"], edge.attrib["from-port"])
            for edge in root.findall("./edges/edge")
        }
        operators, shapes = list[FileOperator](), dict[str, Shape]()
        matrices: dict[str, tuple[int, ...]] = {}
        batch = 1
        for layer in layers:
            sides = {
                f"{layer.attrib['id']}:{port.attrib['id']}": tuple(int(dim.text or -1) for dim in port.findall("dim"))
                for port in layer.findall("./output/port")
            }
            if layer.attrib["type"] == "Parameter" and not operators:
                batch = next((found[0] for found in sides.values() if found), batch)
            shapes |= {name: without_batch(found, batch) for name, found in sides.items()}
            entries = [(layer.attrib["id"], port.attrib["id"]) for port in layer.findall("./input/port")]
            given = [":".join(made_by[entry]) for entry in entries]
            if layer.attrib["type"] == "Parameter" or not sides:
                continue
            if layer.attrib["type"] == "ShapeOf" or all(name in matrices for name in given):
                # known before the first inference
                matrices |= sides
                continue
            operators.append(_operator(layer, given, next(iter(sides)), matrices, shapes))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    return fused(operators, shapes)


def _operator(
    layer: ElementTree.Element,
    given: list[str],
    writes: str,
    matrices: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, Shape],
) -> FileOperator:
    kind = operator_kind(OPENVINO, layer.attrib["type"])
    filters = next((matrices[name] for name in given if len(matrices.get(name, ())) > 1), ())
    grouped = layer.attrib["type"].startswith("GroupConvolution")
    windowed = kind == "conv" and len(filters) > 2
    if windowed and grouped and filters[2] == 1:  # (groups, out, in, height, width)
        kind = "depthwise"
    data = layer.find("data")
    strides = (data.attrib.get("strides", "1") if data is not None else "1").split(",")
    return FileOperator(
        kind=kind,
        reads=tuple(name for name in given if name not in matrices),
        writes=writes,
        taps=math.prod(filters[3 if grouped else 2 :]) if windowed else 1,
        stride=max(int(side) for side in strides) if windowed else 1,
        weights=math.prod(filters) if filters and kind in ("conv", "depthwise", "dense") else 0,
        transposed=layer.attrib["type"].endswith("ConvolutionBackpropData"),
        inner=_inner(shapes[given[0]], data) if kind == "dense" else 0,
        outer=(0, *shapes[writes])[-1] if kind == "dense" else 0,
    )


def _inner(shape: Shape, data: ElementTree.Element | None) -> int:
    """Length of the sums of a matrix product, by the shape of its first factor."""
    transposed = data is not None and data.attrib.get("transpose_a") == "true"
    return (0, 0, *shape)[-2 if transposed else -1]
