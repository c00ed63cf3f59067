"""OpenVINO exporter (.xml and .bin), from the ONNX graph of the same student.

float16 stores half-precision constants. Static int8 reads the graph's quantize-dequantize pairs with *int8* weights:
unsigned ones would cost the convolutions their integer kernels. On an x86 CPU without 8-bit dot products products of
8-bit weights saturate silently, so such a student is refused unless its weights keep to 7 bits (``limit: 63``), which
calibration for that device gives.

Dynamic int8 stores weights in 8 bits, as int8 constants that widen at load; OpenVINO then quantizes the inputs of
linear layers at run time, in groups of 32, where it has such a kernel. int8-weights switches that off in the file's
``runtime_options``, which OpenVINO follows. bf16 stores what float16 does, and gives there the precision to compute in:
this OpenVINO takes it from the program that compiles the model, so every loader has to read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.export.onnx.exporter import OnnxExporter, onnx_model
from edgekd.ir.numerics import BF16, F16, Precision
from edgekd.students._protocol import Student

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenvinoExporter", "save_graph"]

_COUNTED = re.compile(r"[A-Z][A-Za-z]*_[0-9]+(_compressed)?")
"""Names that OpenVINO generates: ``Constant_3154``, and ``Constant_3154_compressed`` for half-precision weights."""


_NOT_FOLDED = "DisableConstantFolding_0"
"""Mark by which OpenVINO's passes keep a node."""


class OpenvinoExporter(OnnxExporter):
    """Writes ``.xml`` with its ``.bin``."""

    format = Format.OPENVINO

    def export(
        self, student: Student, options: ExportOptions, backend: Backend, device: Fingerprint | None, path: Path
    ) -> Artefact:
        """Write the files. Raises ConfigurationError on what `check` finds, or where a graph can't be read."""
        import openvino

        problems = self.check(student, options, backend, device)
        if problems:
            raise ConfigurationError(problems)
        half = student.annotations.precision.weights == F16
        source = student.but(annotations=student.annotations.but(precision=Precision.FLOAT32)) if half else student
        data = onnx_model(source, options, for_openvino=True).SerializeToString()
        try:
            model = openvino.Core().read_model(model=data)  # convert_model would send statistics over the network
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigurationError.one(
                f"OpenVINO can't read the graph of this {student.family} student: {reason}",
                "use another backend",
            ) from error
        dropped = {one.name for one in student.task.input.named} - {name for end in model.inputs for name in end.names}
        if dropped:
            raise ConfigurationError.one(
                f"OpenVINO drops the input `{min(dropped)}`, which no operator reads",
                "leave it out of the model's forward, or use another format",
            )
        save_graph(model, path, half=half, runtime_options=_runtime_options(student.annotations.precision))
        return Artefact.of(path)


def save_graph(
    model: openvino.Model, path: Path, *, half: bool = False, runtime_options: Mapping[str, str] = {}
) -> None:
    """Fold constants and write ``.xml`` and ``.bin``; ``half`` stores floats in half precision."""
    import openvino

    _fold(model)
    for name, value in runtime_options.items():
        model.set_rt_info(value, ["runtime_options", name])
    openvino.save_model(model, path, compress_to_fp16=half)
    _tighten(path)


def _runtime_options(precision: Precision) -> Mapping[str, str]:
    """Options in the file for how it is to be computed."""
    if precision.activations == BF16:
        return {"INFERENCE_PRECISION_HINT": "bf16"}
    plain = precision.weights.is_integer and precision.scheme.quantized == "never"
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"} if plain else {}


def _fold(model: openvino.Model) -> None:
    """Fold constants that the ONNX reader leaves to be computed at every load: a third of an int8 file.

    8-bit weights stay integers. The compiled model is the same.
    """
    from openvino import passes

    widening = [node for node in model.get_ordered_ops() if _widens_weights(node)]
    for node in widening:
        node.get_rt_info()[_NOT_FOLDED] = ""
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    for node in widening:
        del node.get_rt_info()[_NOT_FOLDED]


def _widens_weights(node: openvino.Node) -> bool:
    """Tell whether a node makes 8-bit constants float."""
    if node.get_type_name() != "Convert":
        return False
    source = node.input_value(0)
    return bool(source.get_node().get_type_name() == "Constant" and source.get_element_type().size == 1)


def _tighten(path: Path) -> None:
    """Remove the indentation of the .xml, half of a small model's file, and numbers that count the process's nodes.

    The same student then gives the same bytes, whatever was converted before it.
    """
    tree = ElementTree.fromstring(path.read_bytes())
    for element in tree.iter():
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    for layer in tree.iter("layer"):
        if _COUNTED.fullmatch(layer.get("name", "")):
            layer.set("name", f"{layer.get('type')}.{layer.get('id')}")
    path.write_bytes(b'<?xml version="1.0"?>\n' + ElementTree.tostring(tree))
