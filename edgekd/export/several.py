"""Float32 files of a module of several inputs: no student, and so no encodings, layouts or normalisation.

Each input is float32 (1, ...), as the module's ``forward`` takes it, in the order of its parameters. Outputs are the
logits that `edgekd.students.answers` finds in the module's answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, first_line

__all__ = ["answers_to", "random_inputs", "write_several"]


def random_inputs(shapes: Sequence[Sequence[int]], seed: int, count: int) -> list[NDArray[np.float32]]:
    """Return standard normal arrays (count, *shape), one an input."""
    drawn = np.random.default_rng(seed)
    return [drawn.standard_normal((count, *shape)).astype(np.float32) for shape in shapes]


def answers_to(module: nn.Module, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return a module's answers (N, ...) to samples, one by one: its batch may be fixed by its ``forward``."""
    samples = [[torch.from_numpy(values[at : at + 1]).clone() for values in inputs] for at in range(len(inputs[0]))]
    with torch.inference_mode():
        return np.concatenate([module(*sample).float().numpy() for sample in samples])


def write_several(module: nn.Module, shapes: Sequence[Sequence[int]], form: Format, path: Path) -> Artefact:
    """Write a float32 file of batch 1. Raises ConfigurationError with the converter's reason if it can't."""
    module, examples = module.eval(), tuple(map(torch.from_numpy, random_inputs(shapes, 0, 1)))
    try:
        with torch.no_grad():
            if form is Format.TFLITE:
                path.write_bytes(_tflite(module, examples))
            else:
                _write_graph(_onnx(module, examples), form, path)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, KeyError) as error:
        reason = first_line(error.__cause__ or error)
        raise ConfigurationError.one(
            f"a model of {len(shapes)} inputs can't be written as {form.value}: {reason}",
            "use operators that the format has, or another format",
        ) from error
    return Artefact.of(path)


def _tflite(module: nn.Module, examples: tuple[Tensor, ...]) -> bytes:
    import litert_torch

    logging.getLogger().setLevel(logging.ERROR)
    converter: Any = litert_torch
    content: bytes = converter.convert(module, examples).model_content()
    return content


def _onnx(module: nn.Module, examples: tuple[Tensor, ...]) -> bytes:
    from edgekd.export.onnx.graph import strip

    program = torch.onnx.export(torch.export.export(module, examples), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    strip(model)
    data: bytes = model.SerializeToString()
    return data


def _write_graph(data: bytes, form: Format, path: Path) -> None:
    if form is Format.ONNX:
        path.write_bytes(data)
        return
    import openvino

    from edgekd.export.openvino import save_graph

    save_graph(openvino.Core().read_model(model=data), path)
