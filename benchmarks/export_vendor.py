"""A PyTorch model to a static int8 file by the tools of a runtime's own vendor, as their documents say to use them.

    onnx       torch.onnx.export, quant_pre_process, onnxruntime.quantization.quantize_static (QDQ, one scale a channel)
    tflite     litert_torch.convert (channels last), ai-edge-quantizer's recipe static_wi8_ai8
    openvino   openvino.convert_model, and by `nncf` in an environment that has it: nncf.quantize

Input and output stay float32, as in the files of `edgekd export` that this is compared with. Nothing of edgekd is
imported here. Run by export_models.py: export_vendor.py TOOL BUILD WEIGHTS CALIBRATION FOLDER
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Images = np.ndarray[Any, Any]


def built(build: str, weights: Path) -> Any:
    """The model, frozen, with its trained weights."""
    from safetensors.torch import load_file

    module, _, function = build.partition(":")
    model = getattr(importlib.import_module(f"zoo_models.{module}"), function)()
    model.load_state_dict(load_file(weights))
    return model.eval()


def onnx(build: str, weights: Path, images: Images, folder: Path) -> None:
    """``model.onnx``, by way of the float model."""
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Images] = iter(images)

        def get_next(self) -> dict[str, Images] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    plain, prepared = folder / "float.onnx", folder / "prepared.onnx"
    example = (torch.from_numpy(images[:1]),)
    torch.onnx.export(
        built(build, weights), example, plain, input_names=["images"], dynamo=True, external_data=False, verbose=False
    )
    quant_pre_process(str(plain), str(prepared))
    quantize_static(str(prepared), str(folder / "model.onnx"), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


def tflite(build: str, weights: Path, images: Images, folder: Path) -> None:
    """``model.tflite``, by way of the float model."""
    import litert_torch
    import torch
    from ai_edge_quantizer import qtyping, quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    model = litert_torch.to_channel_last_io(built(build, weights), args=[0]).eval()
    plain = folder / "float.tflite"
    litert_torch.convert(model, (torch.from_numpy(pixels[:1]),)).export(str(plain))
    made = quantizer.Quantizer(str(plain), recipe.static_wi8_ai8())
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        made.update_quantization_recipe(".*", side, algorithm_key=AlgorithmName.NO_QUANTIZE)
    samples = [{"args_0": image[None]} for image in pixels]
    made.quantize(made.calibrate({"serving_default": samples})).export_model(folder / "model.tflite", overwrite=True)


def openvino(build: str, weights: Path, images: Images, folder: Path) -> None:
    """``float.xml``, which `nncf` goes on with."""
    import openvino as ov
    import torch

    example = torch.from_numpy(images[:1])
    model = ov.convert_model(built(build, weights), example_input=example, input=list(example.shape))
    ov.save_model(model, folder / "float.xml", compress_to_fp16=False)


def nncf(build: str, weights: Path, images: Images, folder: Path) -> None:
    """``model.xml`` from ``float.xml``."""
    del build, weights  # they are in float.xml
    import nncf
    import openvino as ov

    data = nncf.Dataset([image[None] for image in images])
    quantized = nncf.quantize(ov.Core().read_model(folder / "float.xml"), data, subset_size=len(images))
    ov.save_model(quantized, folder / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    tool, build, weights, calibration, folder = sys.argv[1:]
    tools = {"onnx": onnx, "tflite": tflite, "openvino": openvino, "nncf": nncf}
    tools[tool](build, Path(weights), np.load(calibration), Path(folder))
